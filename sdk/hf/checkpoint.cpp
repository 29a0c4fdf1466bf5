// Checkpoint and the digests of safetensors.hpp.
#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/digest.hpp"
#include "hf/json_file.hpp"
#include "hf/safetensors.hpp"

namespace hansa::hf {
namespace {

constexpr const char* kSingle = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";

[[noreturn]] void no_weights(const std::filesystem::path& directory) {
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(directory, ignored)) {
    if (entry.path().extension() != ".bin") continue;
    throw Error(
        fmt::format("{} has weights as {} only, which can run code when read. Convert them: python -c \"from "
                    "transformers import AutoModelForCausalLM as M; M.from_pretrained('{}').save_pretrained('{}')\"",
                    directory.string(), entry.path().filename().string(), directory.string(), directory.string()));
  }
  throw Error(fmt::format("{} has no weights: neither {} nor {} is there", directory.string(), kSingle, kIndex));
}

// Tensor name to file name.
nlohmann::json weight_map(const std::filesystem::path& index) {
  auto file = read_json_file(index);
  if (!file.is_object() || is_absent(file, "weight_map") || !file.at("weight_map").is_object()) {
    throw Error(fmt::format("{}: weight_map is missing or not an object", index.string()));
  }
  return file.at("weight_map");
}

std::filesystem::path shard(const std::filesystem::path& directory, const std::string& tensor,
                            const nlohmann::json& name) {
  const auto where = fmt::format("{}: the file of tensor '{}'", (directory / kIndex).string(), tensor);
  if (!name.is_string()) throw Error(where + " is not a text");
  const std::filesystem::path file = name.get<std::string>();
  if (file.empty() || file.has_parent_path() || file == "." || file == "..") {
    throw Error(fmt::format("{} is '{}', which leads out of the directory; only names of files in it are read", where,
                            file.string()));
  }
  return directory / file;
}

}  // namespace

std::vector<std::filesystem::path> weight_files(const std::filesystem::path& directory) {
  if (std::filesystem::exists(directory / kSingle)) return {directory / kSingle};
  if (!std::filesystem::exists(directory / kIndex)) no_weights(directory);
  std::vector<std::filesystem::path> files;
  const auto map = weight_map(directory / kIndex);  // named: items() refers to it
  for (const auto& [tensor, name] : map.items()) files.push_back(shard(directory, tensor, name));
  std::sort(files.begin(), files.end());
  files.erase(std::unique(files.begin(), files.end()), files.end());
  return files;
}

std::string checkpoint_digest(const std::filesystem::path& directory) {
  auto files = weight_files(directory);
  files.push_back(directory / "config.json");
  std::sort(files.begin(), files.end());
  std::string lines;
  for (const auto& file : files) lines += fmt::format("{} {}\n", file.filename().string(), sha256_file_hex(file));
  return sha256_hex(lines);
}

Checkpoint::Checkpoint(const std::filesystem::path& directory) : directory_(directory) {
  for (const auto& file : weight_files(directory)) add_file(file);
  for (const auto& file : files_) {  // after all are in place: the addresses stay
    for (const auto& tensor : file.tensors()) {
      if (!tensors_.emplace(tensor.name, &tensor).second) {
        throw Error(fmt::format("{}: the tensor '{}' is in two of its files", directory.string(), tensor.name));
      }
    }
  }
  if (!std::filesystem::exists(directory / kSingle)) check_index(directory / kIndex);
}

void Checkpoint::add_file(const std::filesystem::path& path) {
  if (!std::filesystem::exists(path)) {
    throw Error(fmt::format("{} is missing, but {} names it; fetch it", path.string(), (directory_ / kIndex).string()));
  }
  files_.emplace_back(path);
}

void Checkpoint::check_index(const std::filesystem::path& index) const {
  const auto map = weight_map(index);
  for (const auto& [tensor, name] : map.items()) {
    const auto path = shard(directory_, tensor, name);
    const auto file =
        std::find_if(files_.begin(), files_.end(), [&](const auto& candidate) { return candidate.path() == path; });
    if (!file->find(tensor)) {
      throw Error(fmt::format("{}: the tensor '{}' is not in {}, where the index has it", index.string(), tensor,
                              path.string()));
    }
  }
}

std::vector<std::string> Checkpoint::names() const {
  std::vector<std::string> all;
  for (const auto& [name, tensor] : tensors_) all.push_back(name);
  return all;
}

const StoredTensor* Checkpoint::find(std::string_view name) const {
  const auto at = tensors_.find(name);
  return at == tensors_.end() ? nullptr : at->second;
}

const StoredTensor& Checkpoint::at(std::string_view name) const {
  if (const auto* tensor = find(name)) return *tensor;
  throw Error(fmt::format("{} has no tensor '{}'", directory_.string(), name));
}

}  // namespace hansa::hf
