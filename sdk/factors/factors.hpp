// Algebra on matrices kept as products of thin factors. Inputs of any floating type, on the CPU; everything is computed in
// double, because the differences of nearly equal clients are what matters. The same inputs give the same bits on one machine
// type with one number of threads. Pure, any thread. Non-finite inputs throw (LAPACK's own message).
#pragma once
#include <cstdint>
#include <span>

#include <ATen/core/Tensor.h>

namespace hansa::factors {

struct Factors {
  at::Tensor left, right;  // [d, m] and [m, k]; the matrix is left · right. m may be 0
};
struct Weighted {
  Factors factors;
  double weight = 1;
};

// Σ weight · left · right as one pair of factors, [l1 | l2 | …] and [r1; r2; …], in double. Weights enter the left side only.
Factors stack(std::span<const Weighted>);

// The singular value decomposition of left · right, n = min(d, m, k): largest values first, the entry of greatest magnitude in
// each column of `left` positive. Values of at most `tolerance` times the largest are made zero; `rank` counts the others.
// Rows of `right` and columns of `left` are orthonormal, those of zero values too.
struct Spectrum {
  at::Tensor left, values, right;  // [d, n], [n], [n, k], double
  std::int64_t rank = 0;
};
Spectrum decompose(const Factors&, double tolerance);
// Bytes that stack() and decompose() of the result hold at once.
std::uint64_t decompose_workspace(std::int64_t d, std::int64_t m, std::int64_t k);

// The first `most` (or fewer) directions with the root of each value on both sides, fp32: as exact as factors in fp32 can be.
Factors balanced(const Spectrum&, std::int64_t most);
// The sum of the products by the fewest columns that hold it to `tolerance` (relative, in the spectral norm), fp32. Works
// through the parts in order and never stacks more than twice as many columns as the matrix has rows or columns, unless one
// part alone does.
Factors merge(std::span<const Factors>, double tolerance);

// `rows` ([n, k], orthonormal) and more rows below, orthonormal too, up to `count` of at most k: random, from the seed.
at::Tensor complete(const at::Tensor& rows, std::int64_t count, std::uint64_t seed);

}  // namespace hansa::factors
