#include "hf/tokenizer.hpp"

#include <algorithm>
#include <mutex>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/digest.hpp"
#include "base/file.hpp"
#include "hf/byte_alphabet.hpp"
#include "hf/json_file.hpp"

namespace hansa::hf {
namespace {

constexpr const char* kFile = "tokenizer.json";
constexpr const char* kConfigFile = "tokenizer_config.json";
const std::string kAddedTokens = "tokenizer.json: added_tokens";
constexpr std::size_t kLongestText = 1u << 30;  // ICU counts in 32 bits

}  // namespace

// Most words of a text come again. Bounded: when it is full it starts anew.
class HfTokenizer::Words {
 public:
  // Appends the ids of a known piece.
  bool append(std::string_view piece, std::vector<TokenId>& ids) const {
    const auto at = places_.find(piece);
    if (at == places_.end()) return false;
    const auto from = ids_.begin() + at->second.first;
    ids.insert(ids.end(), from, from + at->second.second);
    return true;
  }
  void remember(std::string_view piece, std::vector<TokenId>::const_iterator first,
                std::vector<TokenId>::const_iterator last) {
    if (piece.size() > kLongest) return;
    if (places_.size() >= kMost) {
      places_.clear();
      ids_.clear();
    }
    places_.emplace(piece,
                    std::pair(static_cast<std::uint32_t>(ids_.size()), static_cast<std::uint32_t>(last - first)));
    ids_.insert(ids_.end(), first, last);
  }

 private:
  static constexpr std::size_t kMost = 1 << 16, kLongest = 256;
  TextMap<std::pair<std::uint32_t, std::uint32_t>> places_;
  std::vector<TokenId> ids_;
};

struct HfTokenizer::Space {
  PieceSpace pieces;
  MergeSpace merges;
  MatchSpace normalizing;
  Words words;
  std::string mapped;
};

class HfTokenizer::Pool {
 public:
  std::unique_ptr<Space> take() {
    const std::lock_guard lock(mutex_);
    if (free_.empty()) return std::make_unique<Space>();
    auto space = std::move(free_.back());
    free_.pop_back();
    return space;
  }
  void give_back(std::unique_ptr<Space> space) {
    const std::lock_guard lock(mutex_);
    free_.push_back(std::move(space));
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<Space>> free_;
};

HfTokenizer::HfTokenizer(const std::filesystem::path& directory)
    : directory_(directory), pool_(std::make_unique<Pool>()) {
  const auto path = directory / kFile;
  if (!has_tokenizer(directory)) {
    throw Error(fmt::format(
        "{} does not exist; a tokenizer of another form (vocab.json and merges.txt, tokenizer.model) can be "
        "converted: python -c \"from transformers import AutoTokenizer as A; "
        "A.from_pretrained('{}').save_pretrained('{}')\"",
        path.string(), directory.string(), directory.string()));
  }
  const auto file = read_json_file(path);
  try {
    read(file);
    read_ends_of_text(directory);
  } catch (const nlohmann::json::exception& problem) {
    throw Error(fmt::format("{} is not as expected: {}", path.string(), problem.what()));
  } catch (const Error& problem) {
    throw Error(fmt::format("{} (in {})", problem.what(), directory.string()));
  }
}

HfTokenizer::~HfTokenizer() = default;

void HfTokenizer::read(const nlohmann::json& file) {
  // Not applied: truncation, padding, post_processor (see the header).
  allow_only(file,
             {"version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer", "post_processor",
              "decoder", "model"},
             kFile);
  if (!is_absent(file, "version") && file.at("version") != "1.0") {
    throw Error(fmt::format("{}: version = {} is not supported; supported: \"1.0\"", kFile, file.at("version").dump()));
  }
  const auto part = [&](const char* key) { return is_absent(file, key) ? nlohmann::json() : file.at(key); };
  normalizer_ = std::make_unique<Normalizer>(part("normalizer"));
  pre_tokenizer_ = std::make_unique<PreTokenizer>(part("pre_tokenizer"));
  decoder_ = std::make_unique<Decoder>(part("decoder"));
  model_ = std::make_unique<BytePairs>(file.contains("model") ? file.at("model") : nlohmann::json());
  for (const auto& [token, id] : model_->vocabulary()) {
    token_of_id_.emplace(id, token);
    size_ = std::max<std::int64_t>(size_, std::int64_t{id} + 1);
  }
  read_added_tokens(part("added_tokens"));
}

void HfTokenizer::read_added_tokens(const nlohmann::json& list) {
  if (!list.is_null() && !list.is_array()) throw Error(kAddedTokens + " is not a list");
  std::uint64_t next = model_->vocabulary().size();
  for (const auto& entry : list) {
    allow_only(entry, {"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"}, kAddedTokens);
    AddedToken token;
    token.content = text_of(entry, "content", kAddedTokens);
    if (is_absent(entry, "id") || !entry.at("id").is_number_unsigned()) {
      throw Error(fmt::format("{}: the id of '{}' is missing or no number", kAddedTokens, token.content));
    }
    const auto id = entry.at("id").get<std::uint64_t>();
    if (token.content.empty()) throw Error(fmt::format("{}: the token with the id {} is empty", kAddedTokens, id));
    // The reference numbers added tokens itself and only warns where the file says otherwise; ids would then be wrong for the
    // model. So the file has to agree with it: the model's own id, or the next free one.
    const auto known = find(token.content);
    const auto expected = known ? static_cast<std::uint64_t>(*known) : next;
    if (id != expected) {
      throw Error(fmt::format("{}: '{}' has the id {}, but the vocabulary and the tokens before it make it {}",
                              kAddedTokens, token.content, id, expected));
    }
    token.id = static_cast<TokenId>(id);
    token.special = flag_of(entry, "special", false, kAddedTokens);
    token.normalized = flag_of(entry, "normalized", !token.special, kAddedTokens);
    token.single_word = flag_of(entry, "single_word", false, kAddedTokens);
    token.lstrip = flag_of(entry, "lstrip", false, kAddedTokens);
    token.rstrip = flag_of(entry, "rstrip", false, kAddedTokens);
    next = std::max(next, id + 1);
    add(std::move(token));
  }
}

void HfTokenizer::add(AddedToken token) {
  if (const auto [at, fresh] = token_of_id_.try_emplace(token.id, token.content);
      !fresh && at->second != token.content) {
    throw Error(fmt::format("{}: the tokens '{}' and '{}' have the same id {}", kAddedTokens, at->second, token.content,
                            token.id));
  }
  const auto& kept = added_.emplace_back(std::move(token));
  added_by_id_.try_emplace(kept.id, &kept);
  added_by_content_.try_emplace(kept.content, kept.id);
  size_ = std::max<std::int64_t>(size_, std::int64_t{kept.id} + 1);
  if (kept.normalized) {
    MatchSpace space;
    after_normalizing_.add(normalizer_->apply(kept.content, space), kept);
  } else {
    before_normalizing_.add(kept.content, kept);
  }
}

std::optional<std::int64_t> HfTokenizer::find(std::string_view token) const {
  if (const auto at = added_by_content_.find(token); at != added_by_content_.end()) return at->second;
  if (const auto id = model_->find(token)) return *id;
  return std::nullopt;
}

namespace {

// bos_token and eos_token are a text or an added token.
std::optional<std::string> token_named_by(const nlohmann::json& config, const char* key) {
  if (!config.is_object() || is_absent(config, key)) return std::nullopt;
  const auto& value = config.at(key);
  if (value.is_string()) return value.get<std::string>();
  if (value.is_object() && value.contains("content")) return value.at("content").get<std::string>();
  throw Error(fmt::format("{}: {} = {} is not a token", kConfigFile, key, value.dump()));
}

// A number or a list of them, of which the first counts.
std::optional<std::int64_t> id_named_by(const nlohmann::json& config, const char* key) {
  if (!config.is_object() || is_absent(config, key)) return std::nullopt;
  const auto& value = config.at(key);
  const auto& first = value.is_array() && !value.empty() ? value.front() : value;
  if (!first.is_number_integer()) throw Error(fmt::format("config.json: {} = {} is not an id", key, value.dump()));
  return first.get<std::int64_t>();
}

nlohmann::json json_if_exists(const std::filesystem::path& path) {
  return std::filesystem::exists(path) ? read_json_file(path) : nlohmann::json();
}

}  // namespace

void HfTokenizer::read_ends_of_text(const std::filesystem::path& directory) {
  const auto beside = json_if_exists(directory / kConfigFile);
  const auto config = json_if_exists(directory / "config.json");
  const auto resolve = [&](const char* token_key, const char* id_key) -> std::optional<std::int64_t> {
    if (const auto token = token_named_by(beside, token_key)) {
      if (const auto id = find(*token)) return id;
      throw Error(fmt::format("{}: {} '{}' is not a token of {}", kConfigFile, token_key, *token, kFile));
    }
    const auto id = id_named_by(config, id_key);
    return id && *id >= 0 && *id < size_ ? id
                                         : std::nullopt;  // a config may name an id for a vocabulary that is not ours
  };
  begin_of_text_ = resolve("bos_token", "bos_token_id");
  end_of_text_ = resolve("eos_token", "eos_token_id");
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
  auto space = pool_->take();  // lost, not broken, when something throws
  std::vector<TokenId> ids;
  std::vector<Segment> segments;
  before_normalizing_.cut(utf8, segments);
  for (const auto& segment : segments) {
    if (segment.token) {
      ids.push_back(segment.token->id);
    } else {
      encode_plain(segment.text, *space, ids);
    }
  }
  pool_->give_back(std::move(space));
  return {ids.begin(), ids.end()};
}

// Between the tokens that are looked for before normalising.
void HfTokenizer::encode_plain(std::string_view text, Space& space, std::vector<TokenId>& ids) const {
  std::string normalized;
  if (!normalizer_->changes_nothing()) {
    normalized = normalizer_->apply(text, space.normalizing);
    text = normalized;
  }
  if (after_normalizing_.empty()) return encode_pieces(text, space, ids);
  std::vector<Segment> segments;
  after_normalizing_.cut(text, segments);
  for (const auto& segment : segments) {
    if (segment.token) {
      ids.push_back(segment.token->id);
    } else {
      encode_pieces(segment.text, space, ids);
    }
  }
}

void HfTokenizer::encode_pieces(std::string_view text, Space& space, std::vector<TokenId>& ids) const {
  pre_tokenizer_->run(text, space.pieces, [&](std::string_view piece) {
    if (space.words.append(piece, ids)) return;
    const auto before = static_cast<std::ptrdiff_t>(ids.size());
    auto written = piece;
    if (pre_tokenizer_->leaves_bytes()) {
      space.mapped.clear();
      append_as_characters(space.mapped, piece);
      written = space.mapped;
    }
    model_->encode(written, space.merges, ids);
    space.words.remember(piece, ids.begin() + before, ids.end());
  });
}

std::string HfTokenizer::decode(const std::vector<std::int64_t>& ids) const {
  std::vector<std::string> tokens;
  tokens.reserve(ids.size());
  for (const auto id : ids) {
    if (id < 0 || id >= size_) continue;
    const auto key = static_cast<TokenId>(id);
    if (const auto added = added_by_id_.find(key); added != added_by_id_.end() && added->second->special) continue;
    if (const auto token = token_of_id_.find(key); token != token_of_id_.end()) tokens.push_back(token->second);
  }
  return decoder_->run(std::move(tokens));
}

std::string HfTokenizer::digest() const { return tokenizer_digest(directory_); }
std::string HfTokenizer::written(std::int64_t id) const {
  const auto at = token_of_id_.find(static_cast<TokenId>(id));
  return id < 0 || id >= size_ || at == token_of_id_.end() ? std::string() : at->second;
}
std::optional<std::string> HfTokenizer::chat_template() const { return chat_template_of(directory_); }

std::optional<std::string> chat_template_of(const std::filesystem::path& directory) {
  constexpr const char* kOwnFile = "chat_template.jinja";
  if (std::filesystem::exists(directory / kOwnFile)) return read_file(directory / kOwnFile);
  const auto beside = json_if_exists(directory / kConfigFile);
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

bool has_tokenizer(const std::filesystem::path& directory) { return std::filesystem::exists(directory / kFile); }

std::string tokenizer_digest(const std::filesystem::path& directory) {
  std::string lines;
  for (const char* name : {kFile, kConfigFile}) {
    if (!std::filesystem::exists(directory / name)) continue;
    lines += fmt::format("{} {}\n", name, sha256_file_hex(directory / name));
  }
  return sha256_hex(lines);
}

}  // namespace hansa::hf
