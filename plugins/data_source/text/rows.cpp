#include "rows.hpp"

#include <algorithm>

#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

namespace hansa::text {

std::vector<Piece> cut_into_pieces(const Tokens& tokens, std::int64_t length) {
  std::vector<Piece> pieces;
  for (std::size_t d = 0; d < tokens.documents.size(); ++d) {
    const auto inputs = tokens.documents[d].count - 1;  // the last token is a label only
    for (std::size_t first = 0; first < inputs; first += static_cast<std::size_t>(length)) {
      const auto count = std::min(static_cast<std::size_t>(length), inputs - first);
      pieces.push_back(
          {static_cast<std::uint32_t>(d), static_cast<std::uint32_t>(first), static_cast<std::uint32_t>(count)});
    }
  }
  return pieces;
}

std::int64_t bytes_of(const Document& document, std::size_t first, std::size_t count) {
  if (document.counted == 0) return 0;
  const auto before = [&](std::size_t labels) {
    return document.bytes * static_cast<std::int64_t>(std::min(labels, document.counted)) /
           static_cast<std::int64_t>(document.counted);
  };
  return before(first + count) - before(first);
}

RowBuilder::RowBuilder(const Tokens& tokens, std::int64_t rows, std::int64_t length, std::int64_t most_per_row)
    : tokens_(tokens),
      length_(length),
      most_per_row_(most_per_row),
      used_(static_cast<std::size_t>(rows)),
      pieces_(static_cast<std::size_t>(rows)) {
  batch_.tokens = at::zeros({rows, length}, at::kLong);
  batch_.labels = at::full({rows, length}, -100, at::kLong);
  batch_.positions = at::zeros({rows, length}, at::kLong);
  batch_.segments = at::full({rows, length}, -1, at::kLong);
}

bool RowBuilder::add(const Piece& piece) {
  std::size_t row = 0;
  while (row < used_.size() && (used_[row] + piece.count > length_ || pieces_[row] >= most_per_row_)) ++row;
  if (row == used_.size()) return false;
  const auto& document = tokens_.documents[piece.document];
  const auto at = static_cast<std::int64_t>(row) * length_ + used_[row];
  auto* inputs = batch_.tokens.data_ptr<std::int64_t>() + at;
  auto* labels = batch_.labels.data_ptr<std::int64_t>() + at;
  auto* positions = batch_.positions.data_ptr<std::int64_t>() + at;
  auto* segments = batch_.segments.data_ptr<std::int64_t>() + at;
  const auto* ids = tokens_.ids.data() + document.first + piece.first;
  for (std::int64_t i = 0; i < piece.count; ++i) {
    inputs[i] = ids[i];
    labels[i] = ids[i + 1];
    positions[i] = i;
    segments[i] = pieces_[row];
  }
  used_[row] += piece.count;
  ++pieces_[row];
  batch_.counted += piece.count;
  batch_.bytes += bytes_of(document, piece.first, piece.count);
  if (piece.first == 0) ++batch_.documents;
  return true;
}

Batch RowBuilder::take() {
  const auto rows = std::ranges::count_if(used_, [](auto used) { return used > 0; });
  const auto longest = std::ranges::max(used_);
  const bool packed = std::ranges::any_of(pieces_, [](auto pieces) { return pieces > 1; });
  auto cut = [&](at::Tensor& tensor) { tensor = tensor.narrow(0, 0, rows).narrow(1, 0, longest).contiguous(); };
  for (auto* tensor : {&batch_.tokens, &batch_.labels, &batch_.positions, &batch_.segments}) cut(*tensor);
  // Padding stands at the end of a row, where causal attention hides it from all that counts: no segments are needed.
  if (!packed) batch_.segments = at::Tensor();
  return std::move(batch_);
}

}  // namespace hansa::text
