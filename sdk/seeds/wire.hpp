// What FedKSeed (arXiv 2312.06353) puts on the wire: which seeds a node used and the sum of its scalars for each (upwards),
// and half-precision accumulators, one per candidate seed (downwards). Pure, any thread. What comes from others is checked:
// Error says what is wrong with it.
#pragma once
#include <cstdint>
#include <map>
#include <string_view>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <hansa/types.hpp>

namespace hansa::seeds {

inline constexpr std::string_view kUpChannel = "seeds", kDownChannel = "accumulators";
inline constexpr std::int64_t kMostSeeds = 1 << 24;

// Upwards: seeds ascending, each as its distance from the one before it less one, in little-endian groups of seven bits (one
// byte up to 127 in between); their scalars in half precision.
Channel up_channel();  // carried as it is; both lengths are the sender's
using Scalars = std::map<std::uint32_t, double>;
std::vector<at::Tensor> encode(const Scalars&);  // throws when a scalar is beyond half precision
std::vector<std::pair<std::uint32_t, float>> decode(const at::Tensor& seeds, const at::Tensor& scalars,
                                                    std::int64_t candidates);

// Downwards: a log whose entries add up. The sum is canonical: A becomes half(A + entry), element by element, entry after
// entry, so that every node that has read the same entries, or one that stands for the first of them, has the same bits.
Channel down_channel(std::int64_t candidates);
at::Tensor zero_accumulators(std::int64_t candidates);
at::Tensor sum(const at::Tensor& accumulators,
               const at::Tensor& entry);                               // throws, naming the seed, beyond half precision
at::Tensor to_half(const std::vector<double>& entry);                  // likewise
void require_entry(const at::Tensor& entry, std::int64_t candidates);  // right type and length, nothing but numbers

}  // namespace hansa::seeds
