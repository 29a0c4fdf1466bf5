// Attention as products of tiles: a block of queries of all heads of a group against the keys that one of them sees. A tile's
// scores stay in the cache of the core that works on it; the backward pass computes them again from the saved
// log-sums, so that memory grows with the length and not with its square. Training thread; forks over LibTorch's threads.
#pragma once
#include <vector>

#include <ATen/core/Tensor.h>

#include "nn/architecture.hpp"
#include "nn/fast/buffers.hpp"

namespace hansa::nn::fast {

struct Limits {                         // query t of a row sees keys [low, high)
  std::vector<std::int32_t> low, high;  // [sequences, length]
  std::int64_t sequences = 1;           // 1: all rows alike
};

struct Tiles {  // what a pass needs to know
  Heads heads;
  double scale = 1;
  std::int64_t batch = 1, length = 1;
  const Limits* limits = nullptr;
  std::int64_t block() const;  // queries of a tile
  std::int64_t tiles() const { return (length + block() - 1) / block(); }
  std::int64_t slots() const;  // in how many parts the gradients of keys and values are summed up
};

// q, out and their gradients [batch · key-value heads, group · length, dim], in blocks of queries as HeadsJob lays them out; k, v
// [batch · key-value heads, length, dim]; log_sum fp32 [batch · key-value heads, group · length]; dk, dv have slots() in front,
// to be summed. By LibTorch's products, or by the processor's own kernel where there is one for this type and width.
enum class Products : std::uint8_t { Best, LibTorch };
void attend(const Tiles&, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, at::Tensor& out,
            at::Tensor& log_sum, Buffers&, Products = Products::Best);
struct AttentionGradients {
  at::Tensor &dq, &dk, &dv;
};
void attend_back(const Tiles&, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& d_out,
                 const at::Tensor& log_sum, const AttentionGradients&, Buffers&, Products = Products::Best);

}  // namespace hansa::nn::fast
