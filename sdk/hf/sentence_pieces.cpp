#include "hf/sentence_pieces.hpp"

#include <sentencepiece_processor.h>

#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/file.hpp"
#include "hf/json_file.hpp"
#include "hf/tokenizer_files.hpp"

namespace hansa::hf {
namespace {

constexpr const char* kConfigFile = "tokenizer_config.json";

void require(const sentencepiece::util::Status& status, std::string_view doing) {
  if (!status.ok()) throw Error(fmt::format("tokenizer.model: {}: {}", doing, status.error_message()));
}

// Appended to a serialised model it turns off the space before a text: a message of protobuf that occurs again is merged with
// the one before. Field 3 of the model (how to normalise), 2 bytes: field 3 of it (the space) is false.
constexpr std::string_view kWithoutSpace("\x1a\x02\x18\x00", 4);

}  // namespace

struct SentencePieces::Library {
  sentencepiece::SentencePieceProcessor first;
  std::unique_ptr<sentencepiece::SentencePieceProcessor> later;  // for stretches after an added token; null: as `first`
};

SentencePieces::SentencePieces(const std::filesystem::path& directory, const nlohmann::json& config)
    : library_(std::make_unique<Library>()) {
  auto bytes = read_file(directory / "tokenizer.model");
  require(library_->first.LoadFromSerializedProto(bytes), "cannot be read");
  size_ = library_->first.GetPieceSize();
  read_added_tokens(added_tokens_beside(directory, config, [&](const std::string& token) { return find(token); }));
  if (!added_.empty() && !flag_of(config, "legacy", true, kConfigFile)) {
    bytes += kWithoutSpace;
    library_->later = std::make_unique<sentencepiece::SentencePieceProcessor>();
    require(library_->later->LoadFromSerializedProto(bytes), "cannot be read a second time");
  }
  const auto around = [&](const char* wanted, const char* name, std::vector<std::int64_t>& side) {
    if (!flag_of(config, wanted, false, kConfigFile)) return;
    const auto token = token_named_by(config, name);
    const auto id = token ? find(*token) : std::nullopt;
    if (!id) throw Error(fmt::format("{}: {} is true, but {} names no token", kConfigFile, wanted, name));
    side.push_back(*id);
  };
  around("add_bos_token", "bos_token", around_.before);
  around("add_eos_token", "eos_token", around_.after);
}

SentencePieces::~SentencePieces() = default;

void SentencePieces::read_added_tokens(const nlohmann::json& list) {
  for (const auto& one : list) {
    auto token = read_added_token(one);
    const auto id = std::int64_t{token.id};
    if (id < library_->first.GetPieceSize() && written(id) != token.content) {
      throw Error(fmt::format("{}: the added token '{}' has the id {}, which is '{}' in tokenizer.model", kConfigFile,
                              token.content, id, written(id)));
    }
    const auto& kept = added_.emplace_back(std::move(token));
    matcher_.add(kept.content, kept);
    added_by_id_.try_emplace(id, &kept);
    added_by_content_.try_emplace(kept.content, kept.id);
    size_ = std::max(size_, id + 1);
  }
}

std::int64_t SentencePieces::size() const { return size_; }

std::optional<std::int64_t> SentencePieces::find(std::string_view token) const {
  if (const auto at = added_by_content_.find(token); at != added_by_content_.end()) return at->second;
  const auto id = library_->first.PieceToId(token);
  if (id < 0 || library_->first.IdToPiece(id) != token) return std::nullopt;  // the id of the unknown token
  return id;
}

std::string SentencePieces::written(std::int64_t id) const {
  if (const auto at = added_by_id_.find(id); at != added_by_id_.end()) return at->second->content;
  return id < 0 || id >= library_->first.GetPieceSize() ? std::string()
                                                        : library_->first.IdToPiece(static_cast<int>(id));
}

std::vector<std::int64_t> SentencePieces::encode(std::string_view utf8) const {
  std::vector<std::int64_t> ids;
  std::vector<Segment> segments;
  std::vector<int> some;
  matcher_.cut(utf8, segments);
  for (const auto& segment : segments) {
    if (segment.token) {
      ids.push_back(segment.token->id);
      continue;
    }
    const bool later = library_->later && segment.text.data() != utf8.data();
    require((later ? *library_->later : library_->first).Encode(segment.text, &some), "cannot encode a text");
    ids.insert(ids.end(), some.begin(), some.end());
  }
  return ids;
}

std::string SentencePieces::decode(const std::vector<std::int64_t>& ids) const {
  std::string text, part;
  std::vector<int> run;
  const auto flush = [&] {
    if (run.empty()) return;
    require(library_->first.Decode(run, &part), "cannot decode ids");
    text += part;
    run.clear();
  };
  for (const auto id : ids) {
    if (const auto at = added_by_id_.find(id); at != added_by_id_.end()) {
      if (at->second->special) continue;
      flush();
      text += at->second->content;
    } else if (id >= 0 && id < library_->first.GetPieceSize()) {
      run.push_back(static_cast<int>(id));
    }
  }
  flush();
  return text;
}

}  // namespace hansa::hf
