#include "data/encode.hpp"

#include <algorithm>
#include <limits>

#include <hansa/tokenizer_origin.hpp>

namespace hansa::data {

namespace {

std::optional<std::int64_t> special_of(Piece::Kind kind, const Tokenizer& tokenizer) {
  if (kind == Piece::Kind::Begin) return tokenizer.begin_of_text();
  if (kind == Piece::Kind::End && !tokenizer.end_of_text())
    throw BadRecord("the chat template closes answers with the end-of-text token, and the tokenizer has none");
  return tokenizer.end_of_text();
}

std::string written(std::int64_t id, const Tokenizer& tokenizer) {
  const auto* origin = dynamic_cast<const TokenizerOrigin*>(&tokenizer);
  return origin ? origin->written(id) : std::string();
}

struct Run {  // neighbouring pieces that count alike
  std::string text;
  bool counts = false;
};

// How many of `ids` stand wholly before the end of `prefix`, which is how the text of `ids` begins.
struct Border {
  std::size_t before = 0;
  bool within = false;  // the next token reaches over the end of the prefix
};
Border border_after(const std::string& prefix, const std::vector<std::int64_t>& ids, const Tokenizer& tokenizer) {
  const auto alone = tokenizer.encode(prefix);
  const auto common = static_cast<std::size_t>(std::ranges::mismatch(alone, ids).in1 - alone.begin());
  if (common == alone.size()) return {common, false};
  // Here the tokens differ because one reaches over the border. Which one: by the text that they stand for. A token before
  // them is decoded with them, because decoders may drop a space at the start.
  const auto first = common - std::min<std::size_t>(common, 1);
  const auto decoded = [&](const std::vector<std::int64_t>& from, std::size_t end) {
    return tokenizer.decode(
        {from.begin() + static_cast<std::ptrdiff_t>(first), from.begin() + static_cast<std::ptrdiff_t>(end)});
  };
  const auto wanted = decoded(alone, alone.size());
  Border found{common, true};
  for (auto end = common + 1; end <= ids.size(); ++end) {
    const auto text = decoded(ids, end);
    if (wanted.starts_with(text)) found = {end, text.size() < wanted.size()};
    if (text.size() > wanted.size() + 16) break;  // 16: replacement characters of a token that ends within a character
  }
  return found;
}

void append(std::vector<std::int32_t>& to, const std::vector<std::int64_t>& ids, bool counts) {
  for (const auto id : ids) to.push_back(kept(id, counts));
}

// Texts whose runs give, one by one, the tokens of the whole: nearly all.
bool encode_one_by_one(const std::vector<Run>& runs, const std::vector<std::int64_t>& ids, const Tokenizer& tokenizer,
                       std::vector<std::int32_t>& tokens) {
  const auto before = tokens.size();
  std::size_t at = 0;
  for (const auto& run : runs) {
    const auto some = tokenizer.encode(run.text);
    if (some.size() > ids.size() - at ||
        !std::equal(some.begin(), some.end(), ids.begin() + static_cast<std::ptrdiff_t>(at))) {
      tokens.resize(before);
      return false;
    }
    append(tokens, some, run.counts);
    at += some.size();
  }
  if (at == ids.size()) return true;
  tokens.resize(before);
  return false;
}

void encode_runs(const std::vector<Run>& runs, const Tokenizer& tokenizer, std::vector<std::int32_t>& tokens) {
  std::string whole;
  for (const auto& run : runs) whole += run.text;
  const auto ids = tokenizer.encode(whole);
  if (runs.size() == 1) return append(tokens, ids, runs[0].counts);
  if (encode_one_by_one(runs, ids, tokenizer, tokens)) return;
  std::vector<bool> counts(ids.size());
  std::string prefix;
  Border from;
  for (const auto& run : runs) {
    prefix += run.text;
    const auto to = prefix.size() == whole.size() ? Border{ids.size(), false} : border_after(prefix, ids, tokenizer);
    if (run.counts)
      for (auto i = from.before; i < to.before + (to.within ? 1 : 0) && i < ids.size(); ++i) counts[i] = true;
    from = to;
  }
  for (std::size_t i = 0; i < ids.size(); ++i) tokens.push_back(kept(ids[i], counts[i]));
}

// The pieces between special tokens that cannot be written as text.
void encode_pieces(const std::vector<Piece>& pieces, const Tokenizer& tokenizer, std::vector<std::int32_t>& tokens) {
  std::vector<Run> runs;
  const auto add = [&](std::string_view text, bool counts) {
    if (text.empty()) return;
    if (runs.empty() || runs.back().counts != counts) runs.push_back({{}, counts});
    runs.back().text += text;
  };
  const auto flush = [&] {
    if (!runs.empty()) encode_runs(runs, tokenizer, tokens);
    runs.clear();
  };
  for (const auto& piece : pieces) {
    if (piece.kind == Piece::Kind::Text) {
      add(piece.text, piece.counts);
      continue;
    }
    const auto id = special_of(piece.kind, tokenizer);
    if (!id) continue;
    if (const auto text = written(*id, tokenizer); !text.empty()) {
      add(text, piece.counts);
    } else {
      flush();
      tokens.push_back(kept(*id, piece.counts));
    }
  }
  flush();
}

// A first token is foretold by none: the bytes of counting pieces that it stands for are no label's. At least one, as a token
// may end within a character.
std::uint64_t bytes_of_first(const std::vector<Piece>& pieces, std::int64_t first, const Tokenizer& tokenizer) {
  const auto decoded = tokenizer.decode({first});
  const auto held = decoded.empty() ? written(first, tokenizer) : decoded;
  std::string_view rest = held;
  std::uint64_t bytes = 0;
  for (const auto& piece : pieces) {
    if (piece.kind != Piece::Kind::Text && special_of(piece.kind, tokenizer)) break;
    if (piece.text.empty()) continue;
    const auto alike = static_cast<std::size_t>(std::ranges::mismatch(rest, piece.text).in1 - rest.begin());
    const auto within = std::max<std::size_t>(alike, rest.size() == held.size() ? 1 : 0);
    if (piece.counts) bytes += within;
    rest.remove_prefix(std::min(within, rest.size()));
    if (rest.empty() || alike < piece.text.size()) break;
  }
  return bytes;
}

}  // namespace

Encoded encode(const Draft& draft, const Tokenizer& tokenizer, std::int64_t longest) {
  Encoded made{.label = draft.label};
  auto& tokens = made.tokens;
  for (const auto& piece : draft.pieces)
    if (piece.counts) made.bytes += piece.text.size();
  if (draft.frame == Draft::Frame::Classified) {
    append(tokens, tokenizer.encode_with_special(draft.pieces.at(0).text, longest), true);
    return made;
  }
  const bool document = draft.frame == Draft::Frame::Document;
  const auto end = document ? tokenizer.end_of_text() : std::nullopt;
  const auto start = tokenizer.begin_of_text() ? tokenizer.begin_of_text() : end;
  if (document && start) tokens.push_back(kept(*start, false));
  encode_pieces(draft.pieces, tokenizer, tokens);
  if (!tokens.empty() && tokens[0] >= 0) made.bytes -= bytes_of_first(draft.pieces, tokens[0], tokenizer);
  const auto closing = tokenizer.end_of_text();
  for (std::size_t i = 1; i < tokens.size(); ++i)
    if (tokens[i] >= 0 && (document || !closing || tokens[i] != *closing)) ++made.counted;
  if (end) tokens.push_back(kept(*end, !draft.pieces.empty() && draft.pieces.back().counts));
  return made;
}

std::string text_of(const std::vector<Piece>& pieces, const Tokenizer& tokenizer) {
  std::string text;
  for (const auto& piece : pieces) {
    if (piece.kind == Piece::Kind::Text)
      text += piece.text;
    else if (const auto id = special_of(piece.kind, tokenizer))
      text += written(*id, tokenizer);
  }
  return text;
}

}  // namespace hansa::data
