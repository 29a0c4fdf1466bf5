#include "hf/tokenizer_files.hpp"

#include <charconv>
#include <map>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/file.hpp"
#include "hf/json_file.hpp"

namespace hansa::hf {
namespace {

constexpr const char* kFilesConfig = "tokenizer_config.json";
constexpr const char* kAddedFile = "added_tokens.json";
constexpr const char* kSpecialFile = "special_tokens_map.json";
constexpr const char* kNames[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                  "pad_token", "cls_token", "mask_token"};
const std::string kDefaultSpecial = "<|endoftext|>";  // of GPT-2's vocabulary, where no name is given

nlohmann::json json_if_exists(const std::filesystem::path& path) {
  return std::filesystem::exists(path) ? read_json_file(path) : nlohmann::json();
}

nlohmann::json special(const std::string& content) {
  return {{"content", content}, {"special", true}, {"normalized", false}};
}

// "50256"
std::uint64_t id_of_key(const std::string& key) {
  std::uint64_t id = 0;
  const auto end = key.data() + key.size();
  if (const auto read = std::from_chars(key.data(), end, id); read.ec != std::errc() || read.ptr != end)
    throw Error(fmt::format("{}: added_tokens_decoder: '{}' is no id", kFilesConfig, key));
  return id;
}

using ById = std::map<std::uint64_t, nlohmann::json>;

ById listed_tokens(const std::filesystem::path& directory, const nlohmann::json& config) {
  ById tokens;
  if (!is_absent(config, "added_tokens_decoder")) {
    for (const auto& [key, entry] : config.at("added_tokens_decoder").items()) tokens.emplace(id_of_key(key), entry);
    return tokens;
  }
  const auto added = json_if_exists(directory / kAddedFile);
  if (!added.is_object()) return tokens;
  for (const auto& [content, id] : added.items()) {
    if (!id.is_number_unsigned())
      throw Error(fmt::format("{}: the id of '{}' is {}, not a number", kAddedFile, content, id.dump()));
    tokens.emplace(id.get<std::uint64_t>(), nlohmann::json{{"content", content}});
  }
  return tokens;
}

bool is_roberta(const std::filesystem::path& directory, const nlohmann::json& config) {
  if (!is_absent(config, "tokenizer_class"))
    return text_of(config, "tokenizer_class", kFilesConfig).starts_with("Roberta");
  const auto model = json_if_exists(directory / "config.json");
  return model.is_object() && model.value("model_type", nlohmann::json()) == "roberta";
}

nlohmann::json merges_of(const std::filesystem::path& path) {
  auto merges = nlohmann::json::array();
  const auto text = read_file(path);
  for (std::size_t at = 0; at < text.size();) {
    const auto end = std::min(text.find('\n', at), text.size());
    auto line = std::string_view(text).substr(at, end - at);
    if (line.ends_with('\r')) line.remove_suffix(1);
    merges.push_back(line);
    at = end + 1;
  }
  return merges;
}

}  // namespace

std::optional<TokenizerForm> tokenizer_form(const std::filesystem::path& directory) {
  const auto has = [&](const char* name) { return std::filesystem::exists(directory / name); };
  if (has("tokenizer.json")) return TokenizerForm::Json;
  if (has("tokenizer.model")) return TokenizerForm::SentencePiece;
  if (has("vocab.json") && has("merges.txt")) return TokenizerForm::VocabularyAndMerges;
  return std::nullopt;
}

std::vector<std::string> files_of(TokenizerForm form) {
  switch (form) {
    case TokenizerForm::Json: return {"tokenizer.json", kFilesConfig};
    case TokenizerForm::SentencePiece: return {"tokenizer.model", kFilesConfig, kAddedFile, kSpecialFile};
    case TokenizerForm::VocabularyAndMerges: break;
  }
  return {"vocab.json", "merges.txt", kFilesConfig, kAddedFile, kSpecialFile};
}

nlohmann::json read_tokenizer_config(const std::filesystem::path& directory) {
  auto config = json_if_exists(directory / kFilesConfig);
  if (config.is_null()) config = nlohmann::json::object();
  if (!config.is_object()) throw Error(fmt::format("{} is not a JSON object", kFilesConfig));
  const auto names = json_if_exists(directory / kSpecialFile);
  for (const char* name : kNames) {
    if (names.is_object() && is_absent(config, name) && !is_absent(names, name)) config[name] = names.at(name);
  }
  return config;
}

std::optional<std::string> token_named_by(const nlohmann::json& config, const char* key) {
  if (is_absent(config, key)) return std::nullopt;
  const auto& value = config.at(key);
  if (value.is_string()) return value.get<std::string>();
  if (value.is_object() && value.contains("content")) return text_of(value, "content", kFilesConfig);
  throw Error(fmt::format("{}: {} = {} is not a token", kFilesConfig, key, value.dump()));
}

nlohmann::json added_tokens_beside(const std::filesystem::path& directory, const nlohmann::json& config,
                                   const std::function<std::optional<std::int64_t>(const std::string&)>& find) {
  auto tokens = listed_tokens(directory, config);
  const auto add_named = [&](const std::string& content, nlohmann::json token) {
    for (auto& [id, known] : tokens) {
      if (known.value("content", "") != content) continue;
      if (is_absent(known, "special")) known = std::move(token);
      return;
    }
    if (const auto id = find(content)) tokens.emplace(static_cast<std::uint64_t>(*id), std::move(token));
  };
  for (const char* name : kNames) {
    const auto content = token_named_by(config, name);
    if (!content) continue;
    auto token = special(*content);
    if (config.at(name).is_object()) {
      for (const char* flag : {"lstrip", "rstrip", "single_word", "normalized"})
        if (config.at(name).contains(flag)) token[flag] = config.at(name).at(flag);
    }
    add_named(*content, std::move(token));
  }
  if (!is_absent(config, "additional_special_tokens")) {
    for (const auto& one : config.at("additional_special_tokens")) {
      const auto content = one.is_string() ? one.get<std::string>() : text_of(one, "content", kFilesConfig);
      add_named(content, special(content));
    }
  }
  auto list = nlohmann::json::array();
  for (auto& [id, token] : tokens) {
    token["id"] = id;
    list.push_back(std::move(token));
  }
  return list;
}

nlohmann::json read_vocabulary_and_merges(const std::filesystem::path& directory, const nlohmann::json& given) {
  const auto vocabulary = read_json_file(directory / "vocab.json");
  const auto find = [&](const std::string& token) -> std::optional<std::int64_t> {
    if (!vocabulary.is_object() || !vocabulary.contains(token)) return std::nullopt;
    return vocabulary.at(token).get<std::int64_t>();
  };
  auto config = given;
  if (!token_named_by(config, "eos_token") && find(kDefaultSpecial)) config["eos_token"] = kDefaultSpecial;
  const bool prefix_space = flag_of(config, "add_prefix_space", false, kFilesConfig);
  const nlohmann::json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", prefix_space}, {"trim_offsets", true}, {"use_regex", true}};
  nlohmann::json around;
  const auto pair_of = [&](const char* key, const char* usual) {
    const auto name = token_named_by(config, key).value_or(usual);
    const auto id = find(name);
    if (!id) throw Error(fmt::format("{}: {} '{}' is not a token of vocab.json", kFilesConfig, key, name));
    return nlohmann::json::array({name, *id});
  };
  if (is_roberta(directory, config)) {
    around = {
        {"type", "RobertaProcessing"}, {"cls", pair_of("cls_token", "<s>")}, {"sep", pair_of("sep_token", "</s>")}};
  } else if (flag_of(config, "add_bos_token", false, kFilesConfig)) {
    const auto begin = pair_of("bos_token", kDefaultSpecial.c_str());
    nlohmann::json text, token;
    token["SpecialToken"] = {{"id", begin[0]}, {"type_id", 0}};
    text["Sequence"] = {{"id", "A"}, {"type_id", 0}};
    around = {{"type", "TemplateProcessing"}, {"single", nlohmann::json::array({token, text})}};
    around["special_tokens"][begin[0].get<std::string>()]["ids"] = nlohmann::json::array({begin[1]});
  }
  return {{"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", merges_of(directory / "merges.txt")}}},
          {"pre_tokenizer", byte_level},
          {"decoder", byte_level},
          {"post_processor", around},
          {"added_tokens", added_tokens_beside(directory, config, find)}};
}

}  // namespace hansa::hf
