// How a base model is to be held and computed with, as far as that can be said without a tensor: config and models share it.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace hansa {

// The frozen weights in memory. Nf4 (QLoRA, arXiv 2305.14314) and Int8 (absmax of each row) hold the linear modules of the
// blocks; embedding, head and norms stay in the compute type.
enum class BaseDtype : std::uint8_t { Compute, Nf4, Int8 };
inline std::vector<std::string> base_dtype_names() { return {"compute", "nf4", "int8"}; }

// Fast: hand-written passes where there are some for what is asked. Plain: LibTorch's operators and autograd, one by one.
enum class Kernels : std::uint8_t { Fast, Plain };
inline std::vector<std::string> kernels_names() { return {"fast", "plain"}; }

}  // namespace hansa
