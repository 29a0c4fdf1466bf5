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
    return {replace->weight.defined() ? replace->weight.to(compute) : place.weight,
            replace->bias.defined() ? replace->bias.to(compute) : place.bias};
  return {place.weight, place.bias};
}

std::optional<at::Tensor> optional(const at::Tensor& tensor) {
  return tensor.defined() ? std::optional(tensor) : std::nullopt;
}

// What the fixed pairs add to a linear layer, in fp32: in a half type they would be lost in the base's own rounding.
at::Tensor add_fixed(const Place& place, const at::Tensor& x, const at::Tensor& y) {
  const auto wide = x.to(at::kFloat);
  auto sum = y.to(at::kFloat);
  for (const auto& side : place.fixed) {
    const auto inner = at::linear(wide, side.A.to(at::kFloat));
    sum = sum + at::linear(inner, side.B.to(at::kFloat) * side.scale);
  }
  return sum.to(y.scalar_type());
}

}  // namespace

at::Tensor linear(const Place& place, const at::Tensor& x, Dropout& dropout) {
  if (const auto* pair = std::get_if<LowRank>(&place.injected)) {
    auto y =
        low_rank_linear(x, dropout.apply(x, pair->dropout), place.weight, place.bias, pair->A, pair->B, pair->scale);
    return place.fixed.empty() ? y : add_fixed(place, x, y);
  }
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
  if (!head.fixed.empty()) rows = rows.to(at::kFloat);  // and with them the whole head
  auto weight = parameters(head, rows.scalar_type()).first;
  if (const auto* pair = std::get_if<LowRank>(&head.injected)) {
    // [h | s·hAᵀ] [W | B]ᵀ: the pairs ride in one product, so that the chunks stay as they are.
    std::vector<at::Tensor> left{rows}, right{weight.to(rows.scalar_type())};
    auto ride = [&](const LowRank& one) {
      left.push_back(at::linear(dropout.apply(rows, one.dropout), (one.A * one.scale).to(rows.scalar_type())));
      right.push_back(one.B.to(rows.scalar_type()));
    };
    ride(*pair);
    for (const auto& side : head.fixed) ride(side);
    rows = at::cat(left, 1);
    weight = at::cat(right, 1);
  }
  return chunked_cross_entropy(rows, weight, flat, default_chunk_rows(weight.size(0)));
}

}  // namespace hansa::nn
