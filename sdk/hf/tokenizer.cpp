#include "hf/tokenizer.hpp"

#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/digest.hpp"
#include "base/file.hpp"
#include "hf/code_points.hpp"
#include "hf/json_file.hpp"
#include "hf/pipeline.hpp"
#include "hf/sentence_pieces.hpp"
#include "hf/tokenizer_files.hpp"

namespace hansa::hf {
namespace {

constexpr const char* kConfigFile = "tokenizer_config.json";
constexpr std::size_t kLongestText = 1u << 30;  // ICU counts in 32 bits

std::unique_ptr<TextCoder> open_coder(const std::filesystem::path& directory) {
  const auto form = tokenizer_form(directory);
  if (!form) {
    throw Error(fmt::format(
        "{} has no tokenizer: neither tokenizer.json nor tokenizer.model nor vocab.json with merges.txt; another form "
        "can be converted: python -c \"from transformers import AutoTokenizer as A; "
        "A.from_pretrained('{}').save_pretrained('{}')\"",
        directory.string(), directory.string(), directory.string()));
  }
  switch (*form) {
    case TokenizerForm::Json: return std::make_unique<TokenPipeline>(read_json_file(directory / "tokenizer.json"));
    case TokenizerForm::SentencePiece:
      return std::make_unique<SentencePieces>(directory, read_tokenizer_config(directory));
    case TokenizerForm::VocabularyAndMerges: break;
  }
  return std::make_unique<TokenPipeline>(read_vocabulary_and_merges(directory, read_tokenizer_config(directory)));
}

// A number or a list of them, of which the first counts.
std::optional<std::int64_t> id_named_by(const nlohmann::json& config, const char* key) {
  if (!config.is_object() || is_absent(config, key)) return std::nullopt;
  const auto& value = config.at(key);
  const auto& first = value.is_array() && !value.empty() ? value.front() : value;
  if (!first.is_number_integer()) throw Error(fmt::format("config.json: {} = {} is not an id", key, value.dump()));
  return first.get<std::int64_t>();
}

}  // namespace

HfTokenizer::HfTokenizer(const std::filesystem::path& directory) : directory_(directory) {
  try {
    coder_ = open_coder(directory);
    read_named_tokens();
  } catch (const nlohmann::json::exception& problem) {
    throw Error(fmt::format("the tokenizer in {} is not as expected: {}", directory.string(), problem.what()));
  } catch (const Error& problem) {
    const std::string_view what = problem.what();
    if (what.find(directory.string()) != what.npos) throw;
    throw Error(fmt::format("{} (in {})", what, directory.string()));
  }
}

HfTokenizer::~HfTokenizer() = default;

void HfTokenizer::read_named_tokens() {
  const auto beside = read_tokenizer_config(directory_);
  const auto path = directory_ / "config.json";
  const auto config = std::filesystem::exists(path) ? read_json_file(path) : nlohmann::json();
  const auto resolve = [&](const char* token_key, const char* id_key) -> std::optional<std::int64_t> {
    if (const auto token = token_named_by(beside, token_key)) {
      if (const auto id = coder_->find(*token)) return id;
      throw Error(fmt::format("{}: {} '{}' is not a token of the tokenizer", kConfigFile, token_key, *token));
    }
    const auto id = id_named_by(config, id_key);
    // A config may name an id for a vocabulary that is not ours.
    return id && *id >= 0 && *id < coder_->size() ? id : std::nullopt;
  };
  begin_of_text_ = resolve("bos_token", "bos_token_id");
  end_of_text_ = resolve("eos_token", "eos_token_id");
  padding_ = resolve("pad_token", "pad_token_id");
}

std::vector<std::int64_t> HfTokenizer::encode(std::string_view utf8) const {
  if (const auto at = first_invalid_utf8(utf8)) {
    throw Error(fmt::format("the text is not UTF-8: the byte 0x{:02X} at offset {} begins no character",
                            static_cast<unsigned char>(utf8[*at]), *at));
  }
  if (utf8.size() > kLongestText) {
    throw Error(fmt::format("a text of {} bytes is too long for the tokenizer (most: {}); break it up", utf8.size(),
                            kLongestText));
  }
  return coder_->encode(utf8);
}

std::vector<std::int64_t> HfTokenizer::encode_with_special(std::string_view utf8, std::int64_t most) const {
  const auto& [before, after] = coder_->around();
  const auto room = most - static_cast<std::int64_t>(before.size() + after.size());
  auto ids = encode(utf8);
  if (room < static_cast<std::int64_t>(ids.size()))
    ids.resize(static_cast<std::size_t>(std::max<std::int64_t>(room, 0)));
  ids.insert(ids.begin(), before.begin(), before.end());
  ids.insert(ids.end(), after.begin(), after.end());
  if (most < static_cast<std::int64_t>(ids.size()))
    ids.resize(static_cast<std::size_t>(std::max<std::int64_t>(most, 0)));
  return ids;
}

std::string HfTokenizer::decode(const std::vector<std::int64_t>& ids) const { return coder_->decode(ids); }
std::string HfTokenizer::digest() const { return tokenizer_digest(directory_); }
std::optional<std::string> HfTokenizer::chat_template() const { return chat_template_of(directory_); }

std::optional<std::string> chat_template_of(const std::filesystem::path& directory) {
  constexpr const char* kOwnFile = "chat_template.jinja";
  if (std::filesystem::exists(directory / kOwnFile)) return read_file(directory / kOwnFile);
  if (!std::filesystem::exists(directory / kConfigFile)) return std::nullopt;
  const auto beside = read_json_file(directory / kConfigFile);
  if (!beside.is_object() || is_absent(beside, "chat_template")) return std::nullopt;
  const auto& held = beside.at("chat_template");
  if (held.is_string()) return held.get<std::string>();
  if (held.is_array())
    for (const auto& one : held)
      if (one.is_object() && one.value("name", "") == "default" && one.contains("template") &&
          one.at("template").is_string())
        return one.at("template").get<std::string>();
  throw Error(fmt::format("{}: chat_template is neither a text nor a list with one named \"default\"",
                          (directory / kConfigFile).string()));
}

bool has_tokenizer(const std::filesystem::path& directory) { return tokenizer_form(directory).has_value(); }

std::string tokenizer_digest(const std::filesystem::path& directory) {
  std::string lines;
  const auto form = tokenizer_form(directory);
  for (const auto& name : files_of(form.value_or(TokenizerForm::Json))) {
    if (!std::filesystem::exists(directory / name)) continue;
    lines += fmt::format("{} {}\n", name, sha256_file_hex(directory / name));
  }
  return sha256_hex(lines);
}

void require_ids_within(std::int64_t vocabulary, const HfTokenizer& tokenizer, const std::filesystem::path& directory) {
  if (tokenizer.size() <= vocabulary) return;
  throw Error(fmt::format(
      "the tokenizer in {} has ids up to {} ('{}'), but the model has embeddings for {} tokens only (vocab_size in "
      "config.json): they do not belong together, or tokens were added without enlarging the model's embedding",
      directory.string(), tokenizer.size() - 1, tokenizer.written(tokenizer.size() - 1), vocabulary));
}

}  // namespace hansa::hf
