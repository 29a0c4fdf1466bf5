#include "gguf/vocabulary.hpp"

#include <algorithm>
#include <optional>
#include <set>

#include <fmt/format.h>
#include <hf/json_file.hpp>
#include <hf/tokenizer.hpp>
#include <hf/tokenizer_files.hpp>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "gguf/merge_order.hpp"
#include "gguf/pieces.hpp"
#include "gguf/pre_tokenizers.hpp"

namespace hansa::gguf {
namespace {

namespace fs = std::filesystem;

enum Type : std::int32_t { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };

constexpr float kScoreOfAdded = -1000, kScoreOfUnused = -10000;  // after all that merges make

struct Tokens {  // by id
  std::vector<std::string> texts;
  std::vector<std::int32_t> types;
  std::vector<float> scores;

  explicit Tokens(std::int64_t rows)
      : texts(static_cast<std::size_t>(rows)), types(texts.size(), kUnused), scores(texts.size(), kScoreOfUnused) {}
  void put(std::int64_t id, std::string text, Type type, float score) {
    if (id < 0 || id >= static_cast<std::int64_t>(texts.size()))
      throw Error(
          fmt::format("the tokenizer's token '{}' has id {}, but the model has {} rows", text, id, texts.size()));
    const auto at = static_cast<std::size_t>(id);
    texts[at] = std::move(text);
    types[at] = type;
    scores[at] = score;
  }
  // llama.cpp wants a name for each row, and no name twice.
  void complete() {
    for (std::size_t id = 0; id < texts.size(); ++id)
      if (types[id] == kUnused && texts[id].empty()) texts[id] = fmt::format("[PAD{}]", id);
    std::set<std::string_view> seen;
    for (const auto& text : texts)
      if (!seen.insert(text).second)
        throw Error(fmt::format("the tokenizer has two tokens '{}', which a GGUF file cannot hold", text));
  }
};

struct Source {
  fs::path directory;
  nlohmann::json config;  // tokenizer_config.json
  nlohmann::json file;    // as tokenizer.json, be it made from others; null: only tokenizer.model
  hf::HfTokenizer tokenizer;
};

Source open(const fs::path& directory) {
  const auto form = hf::tokenizer_form(directory);
  if (!form)
    throw Error(fmt::format("{} has no tokenizer, and llama.cpp needs one within a model's file", directory.string()));
  auto config = hf::read_tokenizer_config(directory);
  nlohmann::json file;
  if (*form == hf::TokenizerForm::Json) file = hf::read_json_file(directory / "tokenizer.json");
  if (*form == hf::TokenizerForm::VocabularyAndMerges) file = hf::read_vocabulary_and_merges(directory, config);
  return {directory, std::move(config), std::move(file), hf::HfTokenizer(directory)};
}

std::vector<Merge> merges_of(const nlohmann::json& model) {
  std::vector<Merge> merges;
  for (const auto& merge : model.at("merges")) {
    if (merge.is_array()) {
      merges.emplace_back(merge.at(0).get<std::string>(), merge.at(1).get<std::string>());
      continue;
    }
    const auto text = merge.get<std::string>();
    if (text.empty() || text.starts_with("#version")) continue;
    const auto space = text.find(' ', 1);
    if (space == text.npos) throw Error(fmt::format("tokenizer.json: the merge '{}' is no pair", text));
    merges.emplace_back(text.substr(0, space), text.substr(space + 1));
  }
  return merges;
}

void put_added(Tokens& tokens, const nlohmann::json& list) {
  for (const auto& entry : list) {
    const auto id = entry.at("id").get<std::int64_t>();
    const bool special = hf::flag_of(entry, "special", false, "added_tokens");
    tokens.put(id, entry.at("content").get<std::string>(), special ? kControl : kUserDefined, kScoreOfAdded);
  }
}

nlohmann::json added_of(const Source& source) {
  if (!source.file.is_null())
    return hf::is_absent(source.file, "added_tokens") ? nlohmann::json::array() : source.file.at("added_tokens");
  return hf::added_tokens_beside(source.directory, source.config,
                                 [&](const std::string& token) { return source.tokenizer.id_of(token); });
}

bool is_byte_level(const nlohmann::json& file) {
  const auto has = [&](const char* part) {
    return !hf::is_absent(file, part) && file.at(part).dump().find("\"ByteLevel\"") != std::string::npos;
  };
  return has("pre_tokenizer") || has("decoder");
}

// "<0x0A>"
bool is_byte_token(std::string_view token) {
  return token.size() == 6 && token.starts_with("<0x") && token.ends_with('>');
}

// ---- gpt2

Metadata byte_level(const Source& source, std::int64_t rows) {
  const auto& model = source.file.at("model");
  for (const char* affix : {"continuing_subword_prefix", "end_of_word_suffix"})
    if (!hf::is_absent(model, affix) && model.at(affix) != "")
      throw Error(fmt::format("tokenizer.json: llama.cpp knows no {}", affix));
  Tokens tokens(rows);
  for (const auto& [text, id] : model.at("vocab").items()) tokens.put(id.get<std::int64_t>(), text, kNormal, 0);
  put_added(tokens, added_of(source));
  tokens.complete();
  std::vector<std::string> merges;
  for (const auto& [left, right] : merges_of(model)) merges.push_back(left + " " + right);
  return {{"tokenizer.ggml.model", std::string("gpt2")},
          {"tokenizer.ggml.pre", pre_tokenizer_of(source.file)},
          {"tokenizer.ggml.tokens", std::move(tokens.texts)},
          {"tokenizer.ggml.token_type", std::move(tokens.types)},
          {"tokenizer.ggml.merges", std::move(merges)}};
}

// ---- llama

void put_pieces(Tokens& tokens, const PieceFile& file, const Source& source) {
  if (!file.byte_pairs)
    throw Error("tokenizer.model: llama.cpp computes SentencePiece's byte pairs (model_type BPE) for this family only");
  for (std::size_t id = 0; id < file.pieces.size(); ++id) {
    const auto& piece = file.pieces[id];
    const auto known = source.tokenizer.id_of(piece.text);
    if (known && *known != static_cast<std::int64_t>(id))
      throw Error(fmt::format("tokenizer.model has '{}' as {}, tokenizer.json as {}: they are of different models",
                              piece.text, id, *known));
    if (piece.type < kNormal || piece.type > kByte)
      throw Error(fmt::format("tokenizer.model: piece {} is of an unknown type", id));
    tokens.put(static_cast<std::int64_t>(id), piece.text, static_cast<Type>(piece.type), piece.score);
  }
}

void put_vocabulary(Tokens& tokens, const nlohmann::json& file) {
  const auto& model = file.at("model");
  std::set<std::string> added;
  if (!hf::is_absent(file, "added_tokens"))
    for (const auto& one : file.at("added_tokens")) added.insert(one.at("content").get<std::string>());
  const auto unknown = hf::is_absent(model, "unk_token") ? std::string() : model.at("unk_token").get<std::string>();
  const auto type_of = [&](const std::string& text) {
    if (text == unknown) return kUnknown;
    return is_byte_token(text) ? kByte : kNormal;
  };
  std::vector<std::pair<std::string, bool>> list;
  for (const auto& [text, id] : model.at("vocab").items())
    list.emplace_back(text, type_of(text) == kNormal && !added.contains(text));
  const auto scores = scores_of(list, merges_of(model));
  for (const auto& [text, id] : model.at("vocab").items()) {
    const auto score = scores.find(text);
    tokens.put(id.get<std::int64_t>(), text, type_of(text), score == scores.end() ? kScoreOfUnused : score->second);
  }
}

// Does a text get a space before it? Of its first word, which llama.cpp takes for all.
bool gets_space(const hf::HfTokenizer& tokenizer) {
  const auto ids = tokenizer.encode("a");
  return !ids.empty() && tokenizer.written(ids[0]).starts_with("\u2581");
}

Metadata sentence_pieces(const Source& source, std::int64_t rows) {
  Tokens tokens(rows);
  bool remove_extra_spaces = false;
  if (const auto path = source.directory / "tokenizer.model"; fs::exists(path)) {
    const auto file = read_pieces(path);
    put_pieces(tokens, file, source);
    remove_extra_spaces = file.remove_extra_spaces;
  } else {
    put_vocabulary(tokens, source.file);
  }
  if (remove_extra_spaces)
    throw Error("tokenizer.model removes extra spaces, which llama.cpp does not for this kind of tokenizer");
  // The unknown token is often listed as special: its own type says more.
  const auto types = tokens.types;
  put_added(tokens, added_of(source));
  for (std::size_t id = 0; id < types.size(); ++id)
    if (types[id] == kUnknown) tokens.types[id] = kUnknown;
  tokens.complete();
  return {{"tokenizer.ggml.model", std::string("llama")},
          {"tokenizer.ggml.pre", std::string("default")},
          {"tokenizer.ggml.tokens", std::move(tokens.texts)},
          {"tokenizer.ggml.scores", std::move(tokens.scores)},
          {"tokenizer.ggml.token_type", std::move(tokens.types)},
          {"tokenizer.ggml.add_space_prefix", gets_space(source.tokenizer)}};
}

// ---- both

void put_special(const Source& source, Metadata& metadata) {
  const auto& tokenizer = source.tokenizer;
  const auto id = [&](const char* key, std::optional<std::int64_t> value) {
    if (value)
      metadata.emplace_back(fmt::format("tokenizer.ggml.{}_token_id", key), static_cast<std::uint32_t>(*value));
  };
  id("bos", tokenizer.begin_of_text());
  id("eos", tokenizer.end_of_text());
  id("padding", tokenizer.padding());
  if (const auto unknown = hf::token_named_by(source.config, "unk_token")) id("unknown", tokenizer.id_of(*unknown));

  auto around = tokenizer.encode_with_special("a");
  const auto within = tokenizer.encode("a");
  const auto at = std::search(around.begin(), around.end(), within.begin(), within.end());
  const std::vector<std::int64_t> before(around.begin(), at),
      after(at == around.end() ? at : at + static_cast<std::ptrdiff_t>(within.size()), around.end());
  const auto is = [](const std::vector<std::int64_t>& ids, std::optional<std::int64_t> one) {
    return ids.empty() || (one && ids == std::vector{*one});
  };
  if (at == around.end() || !is(before, tokenizer.begin_of_text()) || !is(after, tokenizer.end_of_text()))
    throw Error("the tokenizer puts other tokens around a text than its begin and end, which llama.cpp does not");
  metadata.emplace_back("tokenizer.ggml.add_bos_token", !before.empty());
  metadata.emplace_back("tokenizer.ggml.add_eos_token", !after.empty());
  if (auto chat = hf::chat_template_of(source.directory))
    metadata.emplace_back("tokenizer.chat_template", std::move(*chat));
}

Metadata read(const Source& source, std::int64_t rows) {
  if (source.file.is_null()) return sentence_pieces(source, rows);
  const auto& model = source.file.at("model");
  if (model.value("type", "BPE") != "BPE")
    throw Error(
        fmt::format("tokenizer.json: model.type = {}: GGUF files are written for BPE", model.at("type").dump()));
  if (is_byte_level(source.file)) return byte_level(source, rows);
  if (!hf::flag_of(model, "byte_fallback", false, "tokenizer.json: model"))
    throw Error(
        "tokenizer.json: byte pairs are neither byte-level nor with byte_fallback, and llama.cpp has no third kind");
  return sentence_pieces(source, rows);
}

}  // namespace

Metadata vocabulary_of(const fs::path& checkpoint, std::int64_t rows) {
  try {
    const auto source = open(checkpoint);
    auto metadata = read(source, rows);
    put_special(source, metadata);
    return metadata;
  } catch (const nlohmann::json::exception& problem) {
    throw Error(fmt::format("the tokenizer in {} is not as expected: {}", checkpoint.string(), problem.what()));
  }
}

}  // namespace hansa::gguf
