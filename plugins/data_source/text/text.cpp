#include "text.hpp"

#include <algorithm>
#include <numeric>

#include <fmt/format.h>
#include <hansa/plugin.hpp>

#include "base/error.hpp"
#include "base/rng.hpp"

namespace hansa::text {

void Text::open(const std::filesystem::path& path, const Tokenizer* tokenizer, std::int64_t max_length) {
  if (!tokenizer) throw Error("data source text needs the checkpoint's tokenizer.json, and there is none");
  const auto length = std::min(params_.length, max_length);
  const auto key = std::pair(std::filesystem::absolute(path).lexically_normal().string(), tokenizer);
  auto found = silos_.find(key);
  if (found == silos_.end() || found->second.length != length)
    found = silos_.insert_or_assign(key, read(path, *tokenizer, length)).first;
  open_ = &found->second;
  rewind();
}

Text::Silo Text::read(const std::filesystem::path& path, const Tokenizer& tokenizer, std::int64_t length) const {
  Silo silo{.length = length};
  auto& [ids, documents] = silo.tokens;
  const auto end = tokenizer.end_of_text();
  const auto start = tokenizer.begin_of_text() ? tokenizer.begin_of_text() : end;
  const auto found = read_documents(path, {params_.separator, params_.on_bad}, [&](std::string_view text) {
    const auto encoded = tokenizer.encode(text);
    Document document{.first = ids.size(), .bytes = static_cast<std::int64_t>(text.size())};
    if (start) ids.push_back(static_cast<std::int32_t>(*start));
    for (auto id : encoded) ids.push_back(static_cast<std::int32_t>(id));
    if (end) ids.push_back(static_cast<std::int32_t>(*end));
    document.count = ids.size() - document.first;
    if (document.count < 2) {  // a lone token without a start predicts nothing
      ids.resize(document.first);
      return;
    }
    // Without a start token the first token is never a label; its bytes fall to the others.
    document.counted = document.count - 1 - (end ? 1 : 0);
    documents.push_back(document);
  });
  if (documents.empty())
    throw Error(
        fmt::format("silo {}: no document gives a token to predict; the tokenizer has neither a start nor an end token",
                    path.string()));
  if (found.skipped > 0)
    host_.log(Host::Level::Warning, fmt::format("silo {}: {} of {} documents left out, the first at {}", path.string(),
                                                found.skipped, found.skipped + found.documents, found.first_skipped));
  ids.shrink_to_fit();
  silo.pieces = cut_into_pieces(silo.tokens, length);
  return silo;
}

const Text::Silo& Text::silo() const {
  if (!open_) throw Error("data source text: used before a silo was opened");
  return *open_;
}

std::uint64_t Text::examples() const { return silo().tokens.documents.size(); }

void Text::set_order() {
  order_.resize(silo().pieces.size());
  std::iota(order_.begin(), order_.end(), 0);
  position_ = 0;
  if (!seed_) return;
  SplitMix64 random(derive_seed(*seed_, "text.order", {pass_}));
  for (std::size_t i = order_.size(); i > 1; --i) std::swap(order_[i - 1], order_[random.below(i)]);
}

void Text::shuffle(std::uint64_t seed) {
  seed_ = seed;
  pass_ = 0;
  set_order();
}
void Text::rewind() {
  seed_.reset();
  pass_ = 0;
  set_order();
}

bool Text::next_pass() {
  if (!seed_) return false;
  ++pass_;
  set_order();
  return true;
}

std::optional<Batch> Text::next(std::int64_t rows) {
  const auto& held = silo();
  RowBuilder builder(held.tokens, rows, held.length, params_.mode == Mode::Pad ? 1 : held.length);
  // A tiny silo may go round several times in one batch; one in file order ends.
  while (position_ < order_.size() || next_pass()) {
    if (!builder.add(held.pieces[order_[position_]])) break;
    ++position_;
  }
  if (builder.empty()) return std::nullopt;
  return builder.take();
}

}  // namespace hansa::text

HANSA_PLUGIN(org_hansa_text, "0.1.0") {
  using namespace hansa;
  using text::Params;
  plugin.vendor("Hansa").license("Apache-2.0");
  plugin
      .add<text::Text, Params>("text", "Plain text files: documents between separator lines, as packed or padded rows.")
      .doc(
          "A silo is a .txt file or a directory of them. A document longer than a row is cut into windows; the last "
          "token "
          "of one is the first input of the next.")
      .param(&Params::length, "length", "Tokens of a row; at most the model's longest sequence is used.",
             range(1, 1 << 20), "tokens")
      .param(&Params::mode, "mode", "Several documents in a row, which do not see each other, or one.",
             choices({"pack", "pad"}))
      .param(&Params::separator, "separator", "A line equal to this ends a document; empty: a file is one document.")
      .param(&Params::on_bad, "on_bad", "What to do with a document that is not UTF-8 or holds NUL bytes.",
             choices({"error", "skip"}));
}
