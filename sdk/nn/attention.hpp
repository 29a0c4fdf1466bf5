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

// What an adapter puts before each row: `count` virtual tokens. Their keys and values are held before those of the text.
struct Front {
  // The segment of virtual tokens among those of a batch: everybody sees them.
  static constexpr std::int64_t kSegment = -2;
  std::int64_t count = 0;
  std::int64_t keys = 0;  // so many keys of a pass belong to no token of it: a prefix that is not held yet
};

// Keys and values of a generation: [batch, key_value heads, front + most, dim] a layer.
class KeyValueCache final : public Cache {
 public:
  KeyValueCache(std::int64_t layers, std::int64_t batch, const Heads&, std::int64_t most, const at::TensorOptions&,
                std::int64_t front = 0);
  std::int64_t length() const override { return held_ == 0 ? 0 : held_ - front_; }  // of the text
  std::int64_t held() const { return held_; }                                       // and what stands before it
  std::int64_t front() const { return front_; }
  std::int64_t capacity() const { return most_; }
  std::int64_t batch() const { return batch_; }
  // Writes keys and values [batch, length, key_value heads, dim] after those held and returns all of the layer.
  std::pair<at::Tensor, at::Tensor> extend(std::int64_t layer, const at::Tensor& keys, const at::Tensor& values);
  // By tokens of text, once all layers were extended. The first time they were by the front too.
  void advance(std::int64_t tokens) { held_ += tokens + (held_ == 0 ? front_ : 0); }

 private:
  std::int64_t held_ = 0, most_, batch_, front_;
  std::vector<at::Tensor> keys_, values_;
};

// Which keys a query sees; one for all layers of a batch that have one window.
struct Visibility {
  at::Tensor additive;      // 0 or -inf, broadcastable to [batch · key_value heads, group · length, keys]
  at::Tensor per_sequence;  // the same, broadcastable to [batch, 1, length, keys]; undefined where `causal` says it all
  bool causal = true;
  // Long rows, and all on a GPU: LibTorch's flash operators need less memory; they know no soft cap and no dropout.
  bool flash = false;
};
enum class Sees : std::uint8_t { Past, All };  // itself and what came before, or all of its segment
// Positions and segments of the batch are those of the queries, where they are defined.
Visibility visibility(const AttentionSpec&, Sees, const Batch&, const KeyValueCache*, at::ScalarType compute,
                      const Dropout&, const Front& = {});

// queries [batch, length, query heads, dim], keys and values [batch, front keys + length, key_value heads, dim]; gives
// [batch, length, query heads · dim]. With a cache the layer's keys and values go into it first.
at::Tensor attention(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values, const AttentionSpec&,
                     const Visibility&, Dropout&, KeyValueCache*, std::int64_t layer);

}  // namespace hansa::nn
