#include <ATen/ops/ones.h>

#include <unistd.h>

#include <cstring>
#include <filesystem>

#include <nlohmann/json.hpp>

#include "base/file.hpp"
#include "gguf/export.hpp"
#include "gguf/family.hpp"
#include "gguf/merge_order.hpp"
#include "gguf/pre_tokenizers.hpp"
#include "test.hpp"

namespace hansa::gguf {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

struct Folder {
  fs::path path = fs::temp_directory_path() / ("hansa_gguf_" + std::to_string(getpid()));
  Folder() { fs::create_directories(path); }
  ~Folder() { fs::remove_all(path); }
  void put(const char* name, const std::string& text) const {
    write_file_atomically(path / name, text, Durability::Process);
  }
  std::size_t count() const {
    return static_cast<std::size_t>(std::distance(fs::directory_iterator(path), fs::directory_iterator()));
  }
};

const Json kConfig = {
    {"model_type", "llama"},  {"vocab_size", 10},         {"hidden_size", 8},         {"intermediate_size", 12},
    {"num_hidden_layers", 2}, {"num_attention_heads", 2}, {"num_key_value_heads", 2}, {"max_position_embeddings", 32}};

std::string failure(auto&& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

template <class T>
T at_offset(const std::string& bytes, std::size_t offset) {
  T value{};
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

}  // namespace

TEST_CASE("tensors lie at multiples of 32, in the announced order, and nothing is there before the end") {
  const Folder folder;
  const auto path = folder.path / "x.gguf";
  {
    Writer writer(path, {{"a", std::uint32_t{7}}}, {{"one", {3}, Number::f32}, {"two", {2, 5}, Number::f16}});
    const std::vector<std::byte> one(12, std::byte{1}), two(20, std::byte{2});
    writer.write("two", two);
    CHECK(failure([&] { writer.finish(); }).find("'one' was not written") != std::string::npos);
    CHECK(failure([&] { writer.write("two", two); }).find("twice") != std::string::npos);
    CHECK(failure([&] { writer.write("one", two); }).find("20 bytes, 12 were announced") != std::string::npos);
    writer.write("one", one);
    CHECK_FALSE(fs::exists(path));
    writer.finish();
  }
  const auto bytes = read_file(path);
  CHECK(bytes.substr(0, 4) == "GGUF");
  CHECK(at_offset<std::uint32_t>(bytes, 4) == 3);
  CHECK(at_offset<std::uint64_t>(bytes, 8) == 2);
  REQUIRE(bytes.size() % 32 == 0);
  CHECK(bytes.substr(bytes.size() - 64, 12) == std::string(12, '\1'));
  CHECK(bytes.substr(bytes.size() - 32, 20) == std::string(20, '\2'));
  CHECK(folder.count() == 1);
}

TEST_CASE("a writer that is given up leaves nothing") {
  const Folder folder;
  { const Writer writer(folder.path / "x.gguf", {}, {{"one", {3}, Number::f32}}); }
  CHECK(folder.count() == 0);
}

TEST_CASE("a family without a row is refused by its name, with those that have one") {
  const Folder folder;
  folder.put("config.json", R"({"model_type": "opt"})");
  const auto why = failure([&] { describe(folder.path); });
  CHECK(why.find("model_type 'opt'") != std::string::npos);
  CHECK(why.find("gemma3_text") != std::string::npos);
}

TEST_CASE("what llama.cpp would compute otherwise is refused by the key") {
  const Folder folder;
  const auto refusal = [&](const char* key, const Json& value, const char* type = "llama") {
    auto config = kConfig;
    config["model_type"] = type;
    config[key] = value;
    folder.put("config.json", config.dump());
    return failure([&] { describe(folder.path); });
  };
  const Json llama3 = {{"rope_type", "llama3"}, {"factor", 2.0}, {"low_freq_factor", 1.0}, {"high_freq_factor", 4.0}};
  CHECK(refusal("rope_scaling", llama3) == "");
  CHECK(refusal("rope_scaling", llama3, "qwen2").find("rope_scaling") != std::string::npos);
  CHECK(refusal("rope_scaling", {{"rope_type", "yarn"}, {"factor", 2.0}, {"truncate", false}}).find("truncate") !=
        std::string::npos);
  CHECK(refusal("attention_bias", true, "qwen3").find("attention_bias") != std::string::npos);
  CHECK(refusal("no_rope_layers", {0, 1}, "smollm3").find("no_rope_layers") != std::string::npos);
  CHECK(refusal("query_pre_attn_scalar", 100, "gemma2").find("query_pre_attn_scalar") != std::string::npos);
}

TEST_CASE("a window that the architecture lacks ends the context, and is remarked") {
  const Folder folder;
  auto config = kConfig;
  config["model_type"] = "mistral";
  config["sliding_window"] = 9;
  folder.put("config.json", config.dump());
  const auto description = describe(folder.path);
  CHECK(description.remarks.size() == 1);
  CHECK(description.numbers.back().first == "llama.context_length");
  CHECK(std::get<std::uint32_t>(description.numbers.back().second) == 9);
}

TEST_CASE("an adapter's pairs of one module become one, and scales that differ go into B") {
  const Folder folder;
  folder.put("config.json", kConfig.dump());
  const auto path = folder.path / "a.gguf";
  const LowRank first{at::ones({2, 8}), at::ones({12, 2}), 3}, second{at::ones({1, 8}), at::ones({12, 1}), 5};
  const std::vector<Injection> injections = {{"model.layers.0.mlp.up_proj", first},
                                             {"model.layers.1.mlp.up_proj", first},
                                             {"model.layers.1.mlp.up_proj", second}};
  export_adapter(path, folder.path, injections, Number::f32);
  const auto bytes = read_file(path);
  CHECK(bytes.find("blk.1.ffn_up.weight.lora_b") != std::string::npos);
  // alpha = 3 * 2; the joined pair has rank 3, so its B holds scale * rank / alpha = 3 * 3/6 and 5 * 3/6.
  const auto rows = bytes.substr(bytes.size() - 160, 144);  // [12, 3] and the padding to 32
  CHECK(at_offset<float>(rows, 0) == 1.5f);
  CHECK(at_offset<float>(rows, 4) == 1.5f);
  CHECK(at_offset<float>(rows, 8) == 2.5f);
}

TEST_CASE("what is more than a pair of low rank is refused with its module") {
  const Folder folder;
  folder.put("config.json", kConfig.dump());
  const std::vector<Injection> whole = {{"model.norm", Replace{at::ones({8}), {}}}};
  LowRank dora{at::ones({2, 8}), at::ones({12, 2}), 3};
  dora.magnitude = at::ones({12});
  const std::vector<Injection> lengths = {{"model.layers.0.mlp.up_proj", dora}};
  for (const auto& one : {whole, lengths}) {
    const auto why = failure([&] { export_adapter(folder.path / "a.gguf", folder.path, one, Number::f32); });
    CHECK(why.find(one[0].module) != std::string::npos);
    CHECK(why.find("--merged") != std::string::npos);
  }
  CHECK_FALSE(fs::exists(folder.path / "a.gguf"));
}

TEST_CASE("scores follow merges that are those of a SentencePiece model, and no others") {
  const std::vector<std::pair<std::string, bool>> tokens = {
      {"a", true}, {"b", true}, {"ab", true}, {"aba", true}, {"ba", true}};
  const std::vector<Merge> all = {{"a", "b"}, {"b", "a"}, {"ab", "a"}, {"a", "ba"}};
  const auto scores = scores_of(tokens, all);
  CHECK(scores.at("ab") == -1);
  CHECK(scores.at("aba") == -3);
  CHECK(failure([&] {
          scores_of(tokens, {{"a", "b"}, {"b", "a"}, {"ab", "a"}});
        }).find("'a' and 'ba'") != std::string::npos);
  CHECK(failure([&] {
          scores_of(tokens, {{"a", "b"}, {"ab", "a"}, {"b", "a"}, {"a", "ba"}});
        }).find("'aba'") != std::string::npos);
}

TEST_CASE("a pre-tokenizer that llama.cpp has not is refused with those that it has") {
  const Json byte_level = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}};
  const auto file = [](const Json& pre) { return Json{{"model", {{"type", "BPE"}}}, {"pre_tokenizer", pre}}; };
  CHECK(pre_tokenizer_of(file(byte_level)) == "gpt-2");
  const Json digits = {{"type", "Digits"}, {"individual_digits", true}};
  CHECK(pre_tokenizer_of(file({{"type", "Sequence"}, {"pretokenizers", {digits, byte_level}}})) == "smollm");
  auto spaced = byte_level;
  spaced["add_prefix_space"] = true;
  CHECK(failure([&] { pre_tokenizer_of(file(spaced)); }).find("gpt-4o") != std::string::npos);
  CHECK(failure([&] { pre_tokenizer_of(file({{"type", "Whitespace"}})); }).find("Whitespace") != std::string::npos);
}

}  // namespace hansa::gguf
