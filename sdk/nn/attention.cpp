#include "nn/attention.hpp"

#include <limits>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/baddbmm.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
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
                             const at::TensorOptions& options, std::int64_t front)
    : most_(most), batch_(batch), front_(front) {
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    keys_.push_back(at::zeros({batch, heads.key_value, front + most, heads.dim}, options));
    values_.push_back(at::zeros({batch, heads.key_value, front + most, heads.dim}, options));
  }
}

std::pair<at::Tensor, at::Tensor> KeyValueCache::extend(std::int64_t layer, const at::Tensor& keys,
                                                        const at::Tensor& values) {
  const auto added = keys.size(1);
  auto put = [&](at::Tensor& held, const at::Tensor& more) {
    held.narrow(2, held_, added).copy_(by_head(more));
    return held.narrow(2, 0, held_ + added);
  };
  return {put(keys_[layer], keys), put(values_[layer], values)};
}

namespace {

// True where a query does not see a key, by their places in a row alone.
at::Tensor hidden_by_place(const AttentionSpec& spec, bool causal, bool windowed, const at::Tensor& queries,
                           const at::Tensor& keys) {
  auto hidden = causal ? keys.gt(queries) : (keys + queries).lt(0);
  if (windowed) hidden = hidden.logical_or_(keys.le(queries - *spec.window));
  if (windowed && !causal) hidden.logical_or_(keys.ge(queries + *spec.window));
  return hidden;
}

// The same, by segments [rows, length] of the queries.
at::Tensor hidden_by_segment(const at::Tensor& segments, bool causal, std::int64_t front_keys) {
  const auto front = at::full({segments.size(0), front_keys}, Front::kSegment, segments.options());
  const auto queries = segments.unsqueeze(2), keys = at::cat({front, segments}, 1).unsqueeze(1);
  auto seen = keys.eq(queries).logical_or(keys.eq(Front::kSegment));
  if (!causal) seen.logical_or_(queries.eq(Front::kSegment).logical_and(keys.ge(0)));
  return seen.logical_not();
}

}  // namespace

Visibility visibility(const AttentionSpec& spec, Sees sees, const Batch& batch, const KeyValueCache* cache,
                      at::ScalarType compute, const Dropout& dropout, const Front& front) {
  at::NoGradGuard no_grad;
  const auto device = batch.tokens.device();
  const auto rows = batch.tokens.size(0);
  const auto length = batch.positions.defined() ? batch.positions.size(1) : batch.tokens.size(1);
  const auto past = (cache ? cache->held() : 0) + front.keys;
  Visibility result{.causal = sees == Sees::Past};
  const bool worth_it = length >= kFlashLength || device.is_cuda();
  result.flash = !cache && worth_it && spec.soft_cap == 0 && !(dropout.enabled() && spec.dropout > 0);
  const auto ids = at::TensorOptions().dtype(at::kLong).device(device);
  const auto keys = at::arange(past + length, ids).unsqueeze(0),
             queries = at::arange(past, past + length, ids).unsqueeze(1);
  const bool windowed = spec.window && *spec.window < past + length;
  auto hidden = hidden_by_place(spec, result.causal, windowed, queries, keys).unsqueeze(0);
  const bool packed = batch.segments.defined() && !cache;
  if (packed && front.count > 0) {  // each document is as near to the front as its positions say
    const auto before = at::arange(front.count, ids);
    hidden = at::cat({hidden_by_place(spec, result.causal, windowed, batch.positions.unsqueeze(2), before),
                      hidden.narrow(2, front.count, past + length - front.count).expand({rows, length, -1})},
                     2);
  }
  if (packed) hidden = hidden.logical_or(hidden_by_segment(batch.segments, result.causal, front.keys));
  auto additive = at::zeros(hidden.sizes(), ids.dtype(compute));
  additive.masked_fill_(hidden, -std::numeric_limits<double>::infinity());
  if (result.flash) {
    if (packed || windowed || front.keys > 0) result.per_sequence = additive.unsqueeze(1);
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
    // With a mask a GPU's operators know no grouped heads, and LibTorch would hold all probabilities.
    const bool apart = mask && queries.is_cuda() && group > 1;
    const auto shared = [&](const at::Tensor& x) { return apart ? x.repeat_interleave(group, 2) : x; };
    auto out = at::scaled_dot_product_attention(by_head(queries), by_head(shared(keys)), by_head(shared(values)), mask,
                                                0.0, !mask.has_value() && visible.causal, spec.scale,
                                                !apart && heads.query != heads.key_value);
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
