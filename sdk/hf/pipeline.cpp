#include "hf/pipeline.hpp"

#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "hf/byte_alphabet.hpp"
#include "hf/json_file.hpp"

namespace hansa::hf {
namespace {

const std::string kFile = "tokenizer.json";
constexpr std::size_t kLargestId = 1u << 24;  // entries are held by id

}  // namespace

struct TokenPipeline::Space {
  PieceSpace pieces;
  ModelSpace model;
  MatchSpace normalizing;
  WordMemory words;
  std::string mapped;
  std::vector<Segment> segments, segments_within;
  std::vector<TokenId> ids;
};

TokenPipeline::TokenPipeline(const nlohmann::json& file) : pool_(std::make_unique<Pool<Space>>()) {
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
  around_ = read_post_processor(part("post_processor"));
  model_ = read_token_model(file.contains("model") ? file.at("model") : nlohmann::json());
  model_->for_each([&](std::string_view token, TokenId id) {
    auto& of_id = entry(id);
    of_id.token = token;
    of_id.known = true;
  });
  read_added_tokens(part("added_tokens"));
  prepare_decoding();
}

TokenPipeline::~TokenPipeline() = default;

TokenPipeline::Entry& TokenPipeline::entry(TokenId id) {
  if (id > kLargestId) {
    throw Error(fmt::format("{}: an id of {} is more than Hansa supports ({})", kFile, id, kLargestId));
  }
  if (id >= entries_.size()) entries_.resize(id + 1);
  return entries_[id];
}

void TokenPipeline::read_added_tokens(const nlohmann::json& list) {
  if (!list.is_null() && !list.is_array()) throw Error(kAddedTokensWhere + " is not a list");
  TokenId next = static_cast<TokenId>(model_->count());
  for (const auto& one : list) {
    auto token = read_added_token(one);
    // The reference numbers added tokens itself and only warns where the file says otherwise; ids would then be wrong for the
    // model. So the file has to agree with it: the model's own id, or the next free one.
    const auto known = find(token.content);
    const auto expected = known ? static_cast<TokenId>(*known) : next;
    if (token.id != expected) {
      throw Error(fmt::format("{}: '{}' has the id {}, but the vocabulary and the tokens before it make it {}",
                              kAddedTokensWhere, token.content, token.id, expected));
    }
    next = std::max(next, token.id + 1);
    add(std::move(token));
  }
}

void TokenPipeline::add(AddedToken token) {
  auto& of_id = entry(token.id);
  if (of_id.known && of_id.token != token.content) {
    throw Error(fmt::format("{}: the tokens '{}' and '{}' have the same id {}", kAddedTokensWhere, of_id.token,
                            token.content, token.id));
  }
  of_id.token = token.content;
  of_id.known = true;
  of_id.special = of_id.special || token.special;
  const auto& kept = added_.emplace_back(std::move(token));
  added_by_content_.try_emplace(kept.content, kept.id);
  if (kept.normalized) {
    MatchSpace space;
    after_normalizing_.add(normalizer_->apply(kept.content, space).text, kept);
  } else {
    before_normalizing_.add(kept.content, kept);
  }
}

void TokenPipeline::prepare_decoding() {
  MatchSpace space;
  for (auto& of_id : entries_) {
    if (!of_id.known || of_id.special) continue;
    of_id.later = decoder_->prepared(of_id.token, Decoder::Place::Later, space);
    if (decoder_->first_differs()) of_id.first = decoder_->prepared(of_id.token, Decoder::Place::First, space);
  }
}

std::optional<std::int64_t> TokenPipeline::find(std::string_view token) const {
  if (const auto at = added_by_content_.find(token); at != added_by_content_.end()) return at->second;
  if (const auto id = model_->find(token)) return *id;
  return std::nullopt;
}

std::string TokenPipeline::written(std::int64_t id) const {
  return id < 0 || id >= size() ? std::string() : entries_[static_cast<std::size_t>(id)].token;
}

std::vector<std::int64_t> TokenPipeline::encode(std::string_view utf8) const {
  auto space = pool_->take();  // lost, not broken, when something throws
  auto& ids = space->ids;
  auto& segments = space->segments;
  ids.clear();
  segments.clear();
  before_normalizing_.cut(utf8, segments);
  for (const auto& segment : segments) {
    if (segment.token) {
      ids.push_back(segment.token->id);
    } else {
      encode_plain(segment.text, segment.text.data() == utf8.data() ? Place::Beginning : Place::Later, *space);
    }
  }
  std::vector<std::int64_t> result(ids.begin(), ids.end());
  pool_->give_back(std::move(space));
  return result;
}

// Between the tokens that are looked for before normalising.
void TokenPipeline::encode_plain(std::string_view text, Place place, Space& space) const {
  Normalized normalized;
  if (!normalizer_->changes_nothing()) {
    normalized = normalizer_->apply(text, space.normalizing);
    text = normalized.text;
    if (normalized.front_lost) place = Place::Later;
  }
  if (after_normalizing_.empty()) return encode_pieces(text, place, space);
  auto& segments = space.segments_within;
  segments.clear();
  after_normalizing_.cut(text, segments);
  for (const auto& segment : segments) {
    if (segment.token) {
      space.ids.push_back(segment.token->id);
    } else {
      encode_pieces(segment.text, segment.text.data() == text.data() ? place : Place::Later, space);
    }
  }
}

void TokenPipeline::encode_pieces(std::string_view text, Place place, Space& space) const {
  auto& ids = space.ids;
  pre_tokenizer_->run(text, place, space.pieces, [&](std::string_view piece) {
    if (space.words.append(piece, ids)) return;
    const auto before = static_cast<std::ptrdiff_t>(ids.size());
    auto written = piece;
    if (pre_tokenizer_->leaves_bytes()) {
      space.mapped.clear();
      append_as_characters(space.mapped, piece);
      written = space.mapped;
    }
    model_->encode(written, space.model, ids);
    space.words.remember(piece, ids.begin() + before, ids.end());
  });
}

std::string TokenPipeline::decode(const std::vector<std::int64_t>& ids) const {
  std::vector<std::string_view> tokens;
  tokens.reserve(ids.size());
  for (const auto id : ids) {
    if (id < 0 || id >= size()) continue;
    const auto& of_id = entries_[static_cast<std::size_t>(id)];
    if (!of_id.known || of_id.special) continue;
    tokens.push_back(tokens.empty() && decoder_->first_differs() ? of_id.first : of_id.later);
  }
  return decoder_->join(tokens);
}

}  // namespace hansa::hf
