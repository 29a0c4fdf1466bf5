// Attention with grouped heads: query heads of a group are stacked as rows, so that a group costs one batched
// product. Documents packed into a row do not see each other. Training thread only.
#pragma once
#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>
#include <hansa/model.hpp>

#include "nn/architecture.hpp"
#include "nn/dropout.hpp"

namespace hansa::nn {

// Keys and values of a generation: [batch, key_value heads, most, dim] a layer.
class KeyValueCache final : public Cache {
 public:
  KeyValueCache(std::int64_t layers, std::int64_t batch, const Heads&, std::int64_t most, at::ScalarType);
  std::int64_t length() const override { return length_; }
  std::int64_t capacity() const { return most_; }
  std::int64_t batch() const { return batch_; }
  // Writes keys and values [batch, length, key_value heads, dim] after those held and returns all of the layer.
  std::pair<at::Tensor, at::Tensor> extend(std::int64_t layer, const at::Tensor& keys, const at::Tensor& values);
  void advance(std::int64_t tokens) { length_ += tokens; }  // once all layers were extended

 private:
  std::int64_t length_ = 0, most_, batch_;
  std::vector<at::Tensor> keys_, values_;
};

// Which keys a query sees; one for all layers of a batch that have one window.
struct Visibility {
  at::Tensor additive;      // 0 or -inf, broadcastable to [batch · key_value heads, group · length, keys]
  at::Tensor per_sequence;  // the same, broadcastable to [batch, 1, length, keys]; undefined where `causal` says it all
  bool causal = true;
  bool flash = false;  // long rows: ATen's flash operators need less memory; they know no soft cap and no dropout
};
enum class Sees : std::uint8_t { Past, All };  // itself and what came before, or all of its segment
Visibility visibility(const AttentionSpec&, Sees, const Batch&, const KeyValueCache*, at::ScalarType compute,
                      const Dropout&);

// queries [batch, length, query heads, dim], keys and values [batch, length, key_value heads, dim]; gives
// [batch, length, query heads · dim]. With a cache the layer's keys and values go into it first.
at::Tensor attention(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values, const AttentionSpec&,
                     const Visibility&, Dropout&, KeyValueCache*, std::int64_t layer);

}  // namespace hansa::nn
