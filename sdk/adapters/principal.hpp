// The largest part of a matrix as two thin factors: where PiSSA starts. Pure; fp32 on the CPU.
#pragma once
#include <cstdint>
#include <utility>

#include <ATen/core/Tensor.h>

namespace hansa::adapters {

// B [out, rank] and A [rank, in] with the root of each singular value on both sides, so that B A is nearest to weight [out, in]
// among all of that rank: by subspace iteration from the seed (arXiv 0909.4061), exact where the rank is near a side.
std::pair<at::Tensor, at::Tensor> principal_factors(const at::Tensor& weight, std::int64_t rank, std::uint64_t seed);

}  // namespace hansa::adapters
