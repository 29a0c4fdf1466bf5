#include "nn/layers.hpp"

#include <ATen/ops/cat.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/nonzero.h>
#include <ATen/ops/rms_norm.h>
#include <ATen/ops/silu.h>
#include <ATen/TensorOperators.h>

#include "nn/cross_entropy.hpp"
#include "nn/low_rank.hpp"

namespace hansa::nn {

namespace {

// The weight and bias that the place computes with, in the compute type; a master copy of another type is cast here, and
// the cast's backward brings the gradient back to the master.
std::pair<at::Tensor, at::Tensor> parameters(const Place& place, at::ScalarType compute) {
  if (const auto* replace = std::get_if<Replace>(&place.injected))
    return {replace->weight.to(compute), replace->bias.defined() ? replace->bias.to(compute) : at::Tensor()};
  return {place.weight, place.bias};
}

std::optional<at::Tensor> optional(const at::Tensor& tensor) {
  return tensor.defined() ? std::optional(tensor) : std::nullopt;
}

}  // namespace

at::Tensor linear(const Place& place, const at::Tensor& x, Dropout& dropout) {
  if (const auto* pair = std::get_if<LowRank>(&place.injected))
    return low_rank_linear(x, dropout.apply(x, pair->dropout), place.weight, place.bias, pair->A, pair->B, pair->scale);
  auto [weight, bias] = parameters(place, x.scalar_type());
  return at::linear(x, weight, optional(bias));
}

at::Tensor embedding(const Place& place, const at::Tensor& ids, at::ScalarType compute) {
  return at::embedding(parameters(place, compute).first, ids);
}

at::Tensor rms_norm(const Place& place, const at::Tensor& x, double epsilon) {
  auto weight = parameters(place, x.scalar_type()).first;
  auto wide = x.to(at::kFloat);
  auto scale = (wide * wide).mean(-1, true).add_(epsilon).rsqrt_();
  return (wide * scale).to(x.scalar_type()) * weight;
}

at::Tensor layer_norm(const Place& place, const at::Tensor& x, double epsilon) {
  auto [weight, bias] = parameters(place, x.scalar_type());
  return at::layer_norm(x, {x.size(-1)}, weight, optional(bias), epsilon);
}

at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up) { return at::silu(gate) * up; }

at::Tensor gelu_new(const at::Tensor& x) { return at::gelu(x, "tanh"); }

at::Tensor head_loss(const Place& head, const at::Tensor& hidden, const at::Tensor& labels, Dropout& dropout) {
  auto rows = hidden.reshape({-1, hidden.size(-1)});
  auto flat = labels.reshape({-1});
  auto counted = flat.ge(0).nonzero().squeeze(1);
  if (counted.size(0) != flat.size(0)) {
    rows = rows.index_select(0, counted);
    flat = flat.index_select(0, counted);
  }
  auto weight = parameters(head, rows.scalar_type()).first;
  if (const auto* pair = std::get_if<LowRank>(&head.injected)) {
    // [h | s·hAᵀ] [W | B]ᵀ: the pair rides in one product, so that the chunks stay as they are.
    auto inner = at::linear(dropout.apply(rows, pair->dropout), (pair->A * pair->scale).to(rows.scalar_type()));
    rows = at::cat({rows, inner}, 1);
    weight = at::cat({weight, pair->B.to(rows.scalar_type())}, 1);
  }
  return chunked_cross_entropy(rows, weight, flat, default_chunk_rows(weight.size(0)));
}

}  // namespace hansa::nn
