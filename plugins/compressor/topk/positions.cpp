#include "positions.hpp"

#include <stdexcept>

namespace hansa::topk {
namespace {

constexpr int kMostBits = 40;

class BitWriter {
 public:
  explicit BitWriter(std::int64_t bytes) : bytes_(static_cast<std::size_t>(bytes)) {}
  void put(std::uint64_t bit) {
    bytes_[at_ >> 3] |= static_cast<std::uint8_t>(bit << (at_ & 7));
    ++at_;
  }
  std::vector<std::uint8_t> take() { return std::move(bytes_); }

 private:
  std::vector<std::uint8_t> bytes_;
  std::size_t at_ = 0;
};

class BitReader {
 public:
  explicit BitReader(std::span<const std::uint8_t> bytes) : bytes_(bytes) {}
  std::uint64_t next() {
    if (at_ >> 3 >= bytes_.size()) throw std::invalid_argument("topk: the positions end early");
    const auto bit = bytes_[at_ >> 3] >> (at_ & 7) & 1u;
    ++at_;
    return bit;
  }
  void require_zeros_to_the_end() {
    while (at_ >> 3 < bytes_.size())
      if (next()) throw std::invalid_argument("topk: more positions than belong there");
  }

 private:
  std::span<const std::uint8_t> bytes_;
  std::size_t at_ = 0;
};

}  // namespace

// k gaps with a sum of at most n - k take at most k (bits + 1) + ((n - k) >> bits) bits: the smallest of these.
PositionCode code_for(std::int64_t n, std::int64_t k) {
  PositionCode best;
  std::int64_t fewest = -1;
  for (int bits = 0; bits <= kMostBits; ++bits) {
    const auto needed = k * (bits + 1) + ((n - k) >> bits);
    if (fewest < 0 || needed < fewest) best = {bits, (needed + 7) / 8}, fewest = needed;
  }
  return k == 0 ? PositionCode{} : best;
}

std::vector<std::uint8_t> write_positions(std::span<const std::int64_t> positions, std::int64_t n) {
  const auto code = code_for(n, static_cast<std::int64_t>(positions.size()));
  BitWriter out(code.bytes);
  std::int64_t next = 0;  // the lowest position that may come
  for (auto position : positions) {
    const auto gap = static_cast<std::uint64_t>(position - next);
    for (auto ones = gap >> code.bits; ones > 0; --ones) out.put(1);
    out.put(0);
    for (int bit = 0; bit < code.bits; ++bit) out.put(gap >> bit & 1);
    next = position + 1;
  }
  return out.take();
}

std::vector<std::int64_t> read_positions(std::span<const std::uint8_t> bytes, std::int64_t n, std::int64_t k) {
  const auto code = code_for(n, k);
  if (static_cast<std::int64_t>(bytes.size()) != code.bytes)
    throw std::invalid_argument("topk: the positions do not fit the tensor; do both sides keep the same fraction?");
  BitReader in(bytes);
  std::vector<std::int64_t> positions;
  positions.reserve(static_cast<std::size_t>(k));
  std::int64_t next = 0;
  for (std::int64_t i = 0; i < k; ++i) {
    std::uint64_t gap = 0;
    while (in.next()) ++gap;
    gap <<= code.bits;
    for (int bit = 0; bit < code.bits; ++bit) gap |= in.next() << bit;
    if (gap >= static_cast<std::uint64_t>(n - next))
      throw std::invalid_argument("topk: a position lies beyond the tensor");
    positions.push_back(next + static_cast<std::int64_t>(gap));
    next = positions.back() + 1;
  }
  in.require_zeros_to_the_end();
  return positions;
}

}  // namespace hansa::topk
