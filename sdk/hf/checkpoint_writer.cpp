#include "hf/checkpoint_writer.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "base/file.hpp"
#include "hf/tensors.hpp"

namespace hansa::hf {
namespace {

// config.json of the base, but for the type of the weights, which are fp32 here.
void copy_config(const std::filesystem::path& from, const std::filesystem::path& to) {
  const auto path = from / "config.json";
  if (!std::filesystem::exists(path))
    throw Error(fmt::format(
        "{} is not there: a full export needs the base's directory for config.json and the tokenizer", path.string()));
  auto config = nlohmann::ordered_json::parse(read_file(path));
  for (const auto* key : {"dtype", "torch_dtype"})
    if (config.contains(key)) config[key] = "float32";
  write_file_atomically(to / "config.json", config.dump(2) + "\n", Durability::Process);
}

void copy_tokenizer(const std::filesystem::path& from, const std::filesystem::path& to) {
  for (const auto* name :
       {"tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "vocab.json",
        "merges.txt", "added_tokens.json", "chat_template.jinja", "generation_config.json"})
    if (std::filesystem::exists(from / name))
      write_file_atomically(to / name, read_file(from / name), Durability::Process);
}

}  // namespace

void write_checkpoint(const std::filesystem::path& directory, const std::filesystem::path& base,
                      const std::vector<std::pair<std::string, at::Tensor>>& tensors) {
  std::filesystem::create_directories(directory);
  copy_config(base, directory);
  copy_tokenizer(base, directory);
  save_tensors(directory / "model.safetensors", tensors);  // last: with it the checkpoint is whole
}

}  // namespace hansa::hf
