#include "nn/attention.hpp"

#include <limits>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/baddbmm.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/zeros.h>
#include <ATen/TensorOperators.h>

namespace hansa::nn {

namespace {

constexpr std::int64_t kFlashLength = 1024;  // from here on the probabilities of a layer are too large to hold

at::Tensor by_head(const at::Tensor& x) {
  return x.transpose(1, 2);
}  // [batch, length, heads, dim] -> [batch, heads, length, dim]

}  // namespace

KeyValueCache::KeyValueCache(std::int64_t layers, std::int64_t batch, const Heads& heads, std::int64_t most,
                             at::ScalarType type)
    : most_(most), batch_(batch) {
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    keys_.push_back(at::zeros({batch, heads.key_value, most, heads.dim}, type));
    values_.push_back(at::zeros({batch, heads.key_value, most, heads.dim}, type));
  }
}

std::pair<at::Tensor, at::Tensor> KeyValueCache::extend(std::int64_t layer, const at::Tensor& keys,
                                                        const at::Tensor& values) {
  const auto added = keys.size(1);
  auto put = [&](at::Tensor& held, const at::Tensor& more) {
    held.narrow(2, length_, added).copy_(by_head(more));
    return held.narrow(2, 0, length_ + added);
  };
  return {put(keys_[layer], keys), put(values_[layer], values)};
}

Visibility visibility(const AttentionSpec& spec, Sees sees, const Batch& batch, const KeyValueCache* cache,
                      at::ScalarType compute, const Dropout& dropout) {
  at::NoGradGuard no_grad;
  const auto device = batch.tokens.device();
  const auto rows = batch.tokens.size(0), length = batch.tokens.size(1);
  const auto past = cache ? cache->length() : 0;
  Visibility result{.causal = sees == Sees::Past};
  result.flash = !cache && length >= kFlashLength && spec.soft_cap == 0 && !(dropout.enabled() && spec.dropout > 0);
  const auto ids = at::TensorOptions().dtype(at::kLong).device(device);
  const auto keys = at::arange(past + length, ids).unsqueeze(0),
             queries = at::arange(past, past + length, ids).unsqueeze(1);
  auto hidden = at::zeros({length, past + length}, ids.dtype(at::kBool));
  if (result.causal) hidden.logical_or_(keys.gt(queries));
  const bool windowed = spec.window && *spec.window < past + length;
  if (windowed) hidden.logical_or_(keys.le(queries - *spec.window));
  if (windowed && !result.causal) hidden.logical_or_(keys.ge(queries + *spec.window));
  hidden = hidden.unsqueeze(0);
  const bool packed = batch.segments.defined() && !cache;
  if (packed) hidden = hidden.logical_or(batch.segments.unsqueeze(1).ne(batch.segments.unsqueeze(2)));
  auto additive = at::zeros(hidden.sizes(), ids.dtype(compute));
  additive.masked_fill_(hidden, -std::numeric_limits<double>::infinity());
  if (result.flash) {
    if (packed || windowed) result.per_sequence = additive.unsqueeze(1);
    return result;
  }
  // Repeated for every head once, not in each layer: baddbmm copies it into its result anyway.
  const auto& heads = spec.heads;
  const auto sequences = packed ? rows : 1, repeats = packed ? heads.key_value : 1;
  result.additive = additive.view({sequences, 1, 1, length, past + length})
                        .expand({sequences, repeats, heads.group(), length, past + length})
                        .reshape({sequences * repeats, heads.group() * length, past + length});
  return result;
}

at::Tensor attention(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values,
                     const AttentionSpec& spec, const Visibility& visible, Dropout& dropout, KeyValueCache* cache,
                     std::int64_t layer) {
  const auto& heads = spec.heads;
  const auto rows = queries.size(0), length = queries.size(1), group = heads.group();
  if (visible.flash) {
    auto mask = visible.per_sequence.defined() ? std::optional(visible.per_sequence) : std::nullopt;
    auto out = at::scaled_dot_product_attention(by_head(queries), by_head(keys), by_head(values), mask, 0.0,
                                                !mask.has_value() && visible.causal, spec.scale,
                                                heads.query != heads.key_value);
    return out.transpose(1, 2).reshape({rows, length, heads.query_width()});
  }
  auto [all_keys, all_values] = cache ? cache->extend(layer, keys, values) : std::pair(by_head(keys), by_head(values));
  const auto batch = rows * heads.key_value, seen = all_keys.size(2);
  auto q = queries.view({rows, length, heads.key_value, group, heads.dim})
               .permute({0, 2, 3, 1, 4})
               .reshape({batch, group * length, heads.dim});
  auto k = all_keys.reshape({batch, seen, heads.dim}).transpose(1, 2);
  auto v = all_values.reshape({batch, seen, heads.dim});
  auto scores = spec.soft_cap == 0
                    ? at::baddbmm(visible.additive, q, k, 1, spec.scale)
                    : at::tanh(at::bmm(q, k) * (spec.scale / spec.soft_cap)) * spec.soft_cap + visible.additive;
  auto probabilities = dropout.apply(at::softmax(scores, -1), spec.dropout);
  return at::bmm(probabilities, v)
      .view({rows, heads.key_value, group, length, heads.dim})
      .permute({0, 3, 1, 2, 4})
      .reshape({rows, length, heads.query_width()});
}

}  // namespace hansa::nn
