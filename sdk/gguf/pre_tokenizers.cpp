#include "gguf/pre_tokenizers.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <hf/json_file.hpp>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/error.hpp"

namespace hansa::gguf {
namespace {

// How a text is cut before its bytes are mapped. Merges::Ignored: a word that is a token as it stands is taken whole; llama.cpp
// ties that to the name.
enum class Merges : std::uint8_t { Kept, Ignored };
struct Known {
  std::string_view name;
  std::string_view expression;  // of a Split that isolates; empty: ByteLevel's own
  bool single_digits;           // a Digits step before it
  Merges merges;
};

// Expressions as the checkpoints' tokenizer.json have them.
constexpr Known kKnown[] = {
    {"gpt-2", "", false, Merges::Kept},
    {"smollm", "", true, Merges::Kept},
    {"llama-bpe",
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     false, Merges::Ignored},
    {"smaug-bpe",  // Llama 3's expression where merges count
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     false, Merges::Kept},
    {"qwen2",
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     false, Merges::Kept},
    {"gpt-4o",
     R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     false, Merges::Kept},
    {"tekken",
     R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     false, Merges::Ignored},
};

struct Cutting {
  std::string expression;
  bool single_digits = false, known = true;
};

Cutting cutting_of(const nlohmann::json& pre_tokenizer) {
  std::vector<nlohmann::json> steps;
  if (pre_tokenizer.value("type", "") == "Sequence")
    for (const auto& step : pre_tokenizer.at("pretokenizers")) steps.push_back(step);
  else
    steps.push_back(pre_tokenizer);
  Cutting cutting;
  bool own_expression = false;
  for (const auto& step : steps) {
    const auto type = step.value("type", "");
    if (type == "Digits" && step.value("individual_digits", false)) {
      cutting.single_digits = true;
    } else if (type == "Split" && step.value("behavior", "") == "Isolated" && !step.value("invert", false) &&
               step.at("pattern").contains("Regex") && cutting.expression.empty()) {
      cutting.expression = step.at("pattern").at("Regex").get<std::string>();
    } else if (type == "ByteLevel" && !step.value("add_prefix_space", true)) {
      own_expression = step.value("use_regex", true);
    } else {
      cutting.known = false;
    }
  }
  // One expression cuts: two after each other cut otherwise than either.
  cutting.known = cutting.known && own_expression == cutting.expression.empty();
  return cutting;
}

}  // namespace

std::string pre_tokenizer_of(const nlohmann::json& tokenizer) {
  const auto pre_tokenizer =
      hf::is_absent(tokenizer, "pre_tokenizer") ? nlohmann::json::object() : tokenizer.at("pre_tokenizer");
  const bool ignored = hf::flag_of(tokenizer.at("model"), "ignore_merges", false, "tokenizer.json: model");
  const auto cutting = cutting_of(pre_tokenizer);
  std::vector<std::string_view> names;
  for (const auto& known : kKnown) {
    names.push_back(known.name);
    const bool same = cutting.known && cutting.expression == known.expression &&
                      cutting.single_digits == known.single_digits && ignored == (known.merges == Merges::Ignored);
    if (same) return std::string(known.name);
  }
  throw Error(fmt::format(
      "tokenizer.json: llama.cpp has no pre-tokenizer that is known to cut texts like pre_tokenizer = {} with "
      "ignore_merges = {}; known are those of: {}. Export with --merged --out and convert with llama.cpp's own script, "
      "if "
      "it knows this tokenizer",
      pre_tokenizer.dump(), ignored, fmt::join(names, ", ")));
}

}  // namespace hansa::gguf
