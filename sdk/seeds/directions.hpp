// Random directions z_k over a model's parameters, made again from a seed wherever they are needed: never stored, never
// sent. Torch-free, pure, any thread; nothing is owned. Throws std::invalid_argument on wrong sizes and on instructions that
// this machine does not have.
//
// An element depends on its seed and its place alone, and has the same bits on every machine and with every set of
// instructions: the generator is counter-based, the transform to normals uses only operations whose result IEEE 754 fixes
// (+, -, x, square root, whole numbers; no library function, no fused multiply-add), and sums run in the order of the terms.
//
// - Generator: Philox4x32-10 (Salmon et al., SC'11). Key (seed, family), counter (c low, c high, tensor, 0) with
//   c = 16 * (i / 128) + i % 16 for element i; output word (i % 128) / 16 / 2, and of the word's pair the first or the second.
// - Transform of a word x to a pair of normals (Box and Muller 1958, on halves of the word): u = (x / 2^16 + 1/2) / 2^16,
//   r = sqrt(-2 ln u), phi = pi/2 * ((x mod 2^14) + 1/2) / 2^14, the pair (r cos phi, r sin phi) with the signs of bits 15
//   and 14. Polynomials replace ln, cos and sin (absolute error below 1e-5), so r is at most 4.86: what is missing of a
//   normal's tails has probability 1.2e-6. Mean exactly 0 by symmetry; variance 1 and kurtosis 3 to 1e-3 and better.
#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <string_view>

namespace hansa::seeds {

enum class Instructions : std::uint8_t { Scalar, Avx2, Avx512 };
bool available(Instructions);
Instructions fastest();
std::string_view name_of(Instructions);

struct Term {
  std::uint32_t seed = 0;
  float weight = 0;
};
inline constexpr std::uint64_t kGroup = 128;  // elements made together; parts of a tensor start at multiples of it
struct Place {                                // where the first element of a span stands
  std::uint32_t family = 0;                   // which set of candidate seeds; a run's parameter
  std::uint32_t tensor = 0;                   // position of the tensor in the model
  std::uint64_t first = 0;                    // element within the tensor, in row-major order; a multiple of kGroup
};

// to[i] += weight * z_seed[first + i], term after term.
void add(Instructions, std::span<const Term>, const Place&, std::span<float> to);

// to[i] = kept * base[i] - rate * (the sum over the terms of weight * z_seed[first + i], from 0, term after term).
struct Rebuild {
  float kept = 1, rate = 0;
};
void rebuild(Instructions, const Rebuild&, std::span<const Term>, const Place&, std::span<const float> base,
             std::span<float> to);

// Seconds for one element of one term on one core, measured now, in about a millisecond.
double seconds_per_element(Instructions);

// The generator by itself.
std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key);

}  // namespace hansa::seeds
