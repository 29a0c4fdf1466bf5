#include "hf/sentence_pieces.hpp"

#include <sentencepiece_processor.h>

#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/file.hpp"
#include "hf/code_points.hpp"
#include "hf/json_file.hpp"
#include "hf/tokenizer_files.hpp"

namespace hansa::hf {
namespace {

constexpr const char* kPiecesConfig = "tokenizer_config.json";

void require(const sentencepiece::util::Status& status, std::string_view doing) {
  if (!status.ok()) throw Error(fmt::format("tokenizer.model: {}: {}", doing, status.error_message()));
}

// Appended to a serialised model they turn the space before a text off and on: a message of protobuf that occurs again is merged
// with the one before. Field 3 of the model (how to normalise), 2 bytes: field 3 of it (the space) is false or true.
constexpr std::string_view kWithoutSpace("\x1a\x02\x18\x00", 4), kWithSpace("\x1a\x02\x18\x01", 4);
constexpr std::string_view kMark = "\xE2\x96\x81";  // U+2581 stands for a space

bool is_plain(char c) { return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z'); }

// The mark, or a space, after anything else.
bool spans_words(std::string_view piece) {
  while (piece.starts_with(kMark) || piece.starts_with(' ')) piece.remove_prefix(piece[0] == ' ' ? 1 : kMark.size());
  return piece.find(kMark) != piece.npos || piece.find(' ') != piece.npos;
}

std::string as_text(std::string_view piece) {
  std::string text;
  for (std::size_t at = 0; at < piece.size();) {
    const bool mark = piece.substr(at).starts_with(kMark);
    text += mark ? ' ' : piece[at];
    at += mark ? kMark.size() : 1;
  }
  return text;
}

using Processor = sentencepiece::SentencePieceProcessor;

std::unique_ptr<Processor> variant(const std::string& model, std::string_view appended) {
  auto processor = std::make_unique<Processor>();
  require(processor->LoadFromSerializedProto(model + std::string(appended)), "cannot be read a second time");
  return processor;
}

}  // namespace

struct SentencePieces::Library {
  Processor first;
  std::unique_ptr<Processor> later;  // for stretches after an added token; null: as `first`
  std::unique_ptr<Processor> word;   // for words after a space; null: a text cannot be taken word by word
};

SentencePieces::SentencePieces(const std::filesystem::path& directory, const nlohmann::json& config)
    : library_(std::make_unique<Library>()), pool_(std::make_unique<Pool<WordMemory>>()) {
  const auto bytes = read_file(directory / "tokenizer.model");
  require(library_->first.LoadFromSerializedProto(bytes), "cannot be read");
  size_ = library_->first.GetPieceSize();
  read_added_tokens(added_tokens_beside(directory, config, [&](const std::string& token) { return find(token); }));
  if (!added_.empty() && !flag_of(config, "legacy", true, kPiecesConfig)) {
    library_->later = variant(bytes, kWithoutSpace);
  }
  open_words(bytes);
  read_surfaces();
  const auto around = [&](const char* wanted, const char* name, std::vector<std::int64_t>& side) {
    if (!flag_of(config, wanted, false, kPiecesConfig)) return;
    const auto token = token_named_by(config, name);
    const auto id = token ? find(*token) : std::nullopt;
    if (!id) throw Error(fmt::format("{}: {} is true, but {} names no token", kPiecesConfig, wanted, name));
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
      throw Error(fmt::format("{}: the added token '{}' has the id {}, which is '{}' in tokenizer.model", kPiecesConfig,
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

// Where no piece has a mark inside, and a word gets its mark in front, the words of a text do not concern each other.
void SentencePieces::open_words(const std::string& model) {
  const auto& first = library_->first;
  for (int id = 0; id < first.GetPieceSize(); ++id) {
    if (!first.IsControl(id) && spans_words(first.IdToPiece(id))) return;
  }
  auto word = variant(model, kWithSpace);
  std::vector<std::string> pieces;
  require(word->Encode("a b", &pieces), "cannot encode a text");
  std::string all;
  for (const auto& piece : pieces) all += piece;
  if (all == std::string(kMark) + "a" + std::string(kMark) + "b" && !word->IsUnknown(word->PieceToId(kMark)))
    library_->word = std::move(word);
}

// The text that each id stands for after other words. Kept only if joining them gives what the library gives.
void SentencePieces::read_surfaces() {
  const auto& library = library_->first;
  std::vector<int> all;
  std::vector<std::string> surfaces(static_cast<std::size_t>(library.GetPieceSize()));
  bytes_.assign(surfaces.size(), -1);
  for (int id = 0; id < library.GetPieceSize(); ++id) {
    if (library.IsByte(id))
      bytes_[static_cast<std::size_t>(id)] =
          static_cast<std::int16_t>(std::stoi(library.IdToPiece(id).substr(1, 4), nullptr, 16));
    if (library.IsControl(id) || library.IsUnknown(id) || library.IsByte(id)) continue;
    surfaces[static_cast<std::size_t>(id)] = as_text(library.IdToPiece(id));
    all.push_back(id);
  }
  const auto letter = std::find_if(all.begin(), all.end(), [&](int id) {
    const auto& text = surfaces[static_cast<std::size_t>(id)];
    return !text.empty() && is_plain(text[0]);
  });
  if (letter == all.end()) return;
  all.insert(all.begin(), *letter);
  std::string expected, joined;
  require(library.Decode(all, &expected), "cannot decode ids");
  for (const auto id : all) joined += surfaces[static_cast<std::size_t>(id)];
  if (joined == expected) surfaces_ = std::move(surfaces);
}

void SentencePieces::encode_stretch(std::string_view text, bool later, WordMemory& words,
                                    std::vector<TokenId>& ids) const {
  const auto* processor = later && library_->later ? library_->later.get() : &library_->first;
  std::vector<int> some;
  const auto put = [&](std::string_view part) {
    require(processor->Encode(part, &some), "cannot encode a text");
    ids.insert(ids.end(), some.begin(), some.end());
  };
  if (!library_->word) return put(text);
  // A border: one space between two letters or digits, which no normalisation brings together.
  const auto border_after = [&](std::size_t at) {
    for (at = text.find(' ', at); at != text.npos; at = text.find(' ', at + 1)) {
      if (at > 0 && at + 1 < text.size() && is_plain(text[at - 1]) && is_plain(text[at + 1])) return at;
    }
    return text.size();
  };
  auto end = border_after(0);
  put(text.substr(0, end));
  processor = library_->word.get();
  while (end < text.size()) {
    const auto begin = end + 1;
    end = border_after(begin);
    const auto part = text.substr(begin, end - begin);
    if (words.append(part, ids)) continue;
    const auto before = static_cast<std::ptrdiff_t>(ids.size());
    put(part);
    words.remember(part, ids.begin() + before, ids.end());
  }
}

std::vector<std::int64_t> SentencePieces::encode(std::string_view utf8) const {
  std::vector<TokenId> ids;
  std::vector<Segment> segments;
  matcher_.cut(utf8, segments);
  auto words = pool_->take();  // lost, not broken, when something throws
  for (const auto& segment : segments) {
    if (segment.token) {
      ids.push_back(segment.token->id);
    } else {
      encode_stretch(segment.text, segment.text.data() != utf8.data(), *words, ids);
    }
  }
  pool_->give_back(std::move(words));
  return {ids.begin(), ids.end()};
}

// The library decodes the beginning: up to the last unknown token, and to the first letter or digit. All of it where bytes
// are no UTF-8.
std::string SentencePieces::decode_run(const std::vector<int>& run) const {
  const auto& library = library_->first;
  const auto surface = [&](std::size_t i) -> const std::string& { return surfaces_[static_cast<std::size_t>(run[i])]; };
  const auto byte = [&](std::size_t i) { return bytes_[static_cast<std::size_t>(run[i])]; };
  const auto by_library = [&](std::size_t count) {
    std::string text;
    require(library.Decode(std::vector<int>(run.begin(), run.begin() + static_cast<std::ptrdiff_t>(count)), &text),
            "cannot decode ids");
    return text;
  };
  if (surfaces_.empty()) return by_library(run.size());
  std::size_t head = 0;
  for (std::size_t i = 0; i < run.size(); ++i) {
    if (library.IsUnknown(run[i])) head = i + 1;
  }
  for (bool started = false; head < run.size() && !started; ++head) {
    started = std::any_of(surface(head).begin(), surface(head).end(), is_plain);
  }
  auto text = by_library(head);
  for (std::string bytes; head < run.size(); ++head) {
    if (byte(head) < 0) {
      text += surface(head);
      continue;
    }
    bytes.push_back(static_cast<char>(byte(head)));
    if (head + 1 < run.size() && byte(head + 1) >= 0) continue;
    if (first_invalid_utf8(bytes)) return by_library(run.size());
    text += bytes;
    bytes.clear();
  }
  return text;
}

std::string SentencePieces::decode(const std::vector<std::int64_t>& ids) const {
  std::string text;
  std::vector<int> run;
  const auto flush = [&] {
    if (!run.empty()) text += decode_run(run);
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
