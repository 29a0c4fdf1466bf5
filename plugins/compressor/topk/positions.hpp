// Ascending positions in bits. Each gap g (positions skipped since the one before) is a Rice code: g >> bits ones, a zero, the
// lowest `bits` bits of g. Where every position is kept or half of them are, bits is 0 and the code is a bitmap; where they
// are rare it is within a tenth of the entropy. The room that any choice of k positions out of n needs follows from n and k,
// so the length says nothing about the values. Pure functions.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace hansa::topk {

struct PositionCode {
  int bits = 0;
  std::int64_t bytes = 0;  // room for any k of n positions
};
PositionCode code_for(std::int64_t n, std::int64_t k);

std::vector<std::uint8_t> write_positions(std::span<const std::int64_t> positions,
                                          std::int64_t n);  // ascending, below n
// The k positions, ascending and below n. Throws std::invalid_argument on anything that write_positions does not write.
std::vector<std::int64_t> read_positions(std::span<const std::uint8_t> bytes, std::int64_t n, std::int64_t k);

}  // namespace hansa::topk
