#include "nn/layers.hpp"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/index_put.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/nonzero.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/zeros.h>
#include <ATen/TensorOperators.h>

#include "nn/cross_entropy.hpp"
#include "nn/frozen_linear.hpp"
#include "nn/label_losses.hpp"
#include "nn/low_rank.hpp"

namespace hansa::nn {

namespace {

// The weight and bias that the place computes with, in the compute type; a master copy of another type is cast here, and
// the cast's backward brings the gradient back to the master.
std::pair<at::Tensor, at::Tensor> parameters(const Place& place, at::ScalarType compute) {
  const auto& replace = place.injected.replace;
  if (!replace) return {place.weight, place.bias};
  return {replace->weight.defined() ? replace->weight.to(compute) : place.weight,
          replace->bias.defined() ? replace->bias.to(compute) : place.bias};
}

// The frozen or trained product itself.
at::Tensor product(const Place& place, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  if (place.stored.defined()) return frozen_linear(x, place.stored, bias);
  return at::linear(x, weight, bias.defined() ? std::optional(bias) : std::nullopt);
}

std::optional<at::Tensor> optional(const at::Tensor& tensor) {
  return tensor.defined() ? std::optional(tensor) : std::nullopt;
}

// What the fixed pairs add to a linear layer, in fp32: in a half type they would be lost in the base's own rounding.
at::Tensor add_fixed(const std::vector<LowRank>& fixed, const at::Tensor& x, const at::Tensor& y) {
  const auto wide = x.to(at::kFloat);
  auto sum = y.to(at::kFloat);
  for (const auto& side : fixed) {
    const auto inner = at::linear(wide, side.A.to(at::kFloat));
    sum = sum + at::linear(inner, side.B.to(at::kFloat) * side.scale);
  }
  return sum.to(y.scalar_type());
}

// DoRA: what the rows of weight + pairs are multiplied with to have the length that was learnt, fp32 [out]. Their own length
// is a constant in the backward pass, and is found without their sum: |w + c|² = |w|² + 2 w·c + |c|² with c = B A.
at::Tensor row_factors(const Injected& in, const at::Tensor& weight) {
  const auto& pair = *in.low_rank;
  at::Tensor lengths;
  {
    at::NoGradGuard no_grad;
    std::vector<at::Tensor> left{pair.B.to(at::kFloat) * pair.scale}, right{pair.A.to(at::kFloat)};
    for (const auto& side : in.fixed) {
      left.push_back(side.B.to(at::kFloat) * side.scale);
      right.push_back(side.A.to(at::kFloat));
    }
    const auto B = at::cat(left, 1), A = at::cat(right, 0);
    const auto own = at::linalg_vector_norm(weight, 2, 1, false, at::kFloat).square();
    const auto crossed = (at::mm(weight, A.t().to(weight.scalar_type())).to(at::kFloat) * B).sum(1);
    const auto added = (at::mm(B, at::mm(A, A.t())) * B).sum(1);
    lengths = (own + 2 * crossed + added).clamp_min_(0).sqrt_();
  }
  return pair.magnitude.to(at::kFloat) / lengths;
}

at::Tensor with_pairs(const Place& place, const at::Tensor& x, Dropout& dropout) {
  const auto& in = place.injected;
  const auto& pair = *in.low_rank;
  const auto type = x.scalar_type();
  const bool trains =
      in.replace && in.replace->weight.defined();  // then the joined form, for frozen weights, will not do
  const auto [weight, bias] = parameters(place, type);
  const auto before = pair.magnitude.defined() ? at::Tensor() : bias;  // DoRA: the bias comes after the rows' factors
  const auto seen = dropout.apply(x, pair.dropout);
  at::Tensor y;
  if (!trains && !pair.inner.defined() && !place.stored.defined()) {
    y = low_rank_linear(x, seen, weight, before, pair.A, pair.B, pair.scale);
  } else {
    auto inner = at::linear(seen, pair.A.to(type));
    if (pair.inner.defined()) inner = inner * pair.inner.to(type);
    auto added = at::linear(inner, pair.B.to(type));
    added = pair.outer.defined() ? added * (pair.outer * pair.scale).to(type) : added * pair.scale;
    y = product(place, x, weight, before) + added;
  }
  if (!in.fixed.empty()) y = add_fixed(in.fixed, x, y);
  if (!pair.magnitude.defined()) return y;
  y = y * row_factors(in, place.stored.defined() ? place.stored.borrow(type) : weight).to(type);
  return bias.defined() ? y + bias : y;
}

at::Tensor passed(const Bottleneck& bottleneck, const at::Tensor& y) {
  const auto type = y.scalar_type();
  auto inner = at::linear(y, bottleneck.down.to(type), bottleneck.down_bias.to(type));
  switch (bottleneck.activation) {
    case Bottleneck::Activation::Relu: inner = at::relu(inner); break;
    case Bottleneck::Activation::Gelu: inner = at::gelu(inner); break;
    case Bottleneck::Activation::Silu: inner = at::silu(inner); break;
  }
  return at::linear(inner, bottleneck.up.to(type), bottleneck.up_bias.to(type));
}

at::Tensor rescaled(const std::optional<Rescale>& rescale, Rescale::Of of, const at::Tensor& x) {
  return rescale && rescale->of == of ? x * rescale->by.to(x.scalar_type()) : x;
}

}  // namespace

at::Tensor linear(const Place& place, const at::Tensor& x, Dropout& dropout) {
  const auto& in = place.injected;
  const auto seen = rescaled(in.rescale, Rescale::Of::Input, x);
  at::Tensor y;
  if (in.low_rank) {
    y = with_pairs(place, seen, dropout);
  } else {
    const auto [weight, bias] = parameters(place, x.scalar_type());
    y = product(place, seen, weight, bias);
  }
  y = rescaled(in.rescale, Rescale::Of::Output, y);
  return in.bottleneck ? y + passed(*in.bottleneck, y) : y;
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

at::Tensor rms_norm_plus_one(const Place& place, const at::Tensor& x, double epsilon) {
  auto weight = parameters(place, x.scalar_type()).first.to(at::kFloat);
  auto wide = x.to(at::kFloat);
  auto scale = (wide * wide).mean(-1, true).add_(epsilon).rsqrt_();
  return (wide * scale * (weight + 1)).to(x.scalar_type());
}

at::Tensor layer_norm(const at::Tensor& x, double epsilon) { return at::layer_norm(x, {x.size(-1)}, {}, {}, epsilon); }

at::Tensor layer_norm(const Place& place, const at::Tensor& x, double epsilon) {
  auto [weight, bias] = parameters(place, x.scalar_type());
  return at::layer_norm(x, {x.size(-1)}, weight, optional(bias), epsilon);
}

namespace {

struct HeadProduct {  // rows weightᵀ are the logits of the counted labels
  at::Tensor rows, weight, labels;
  at::Tensor counted;  // where they stand in the flattened labels
};

HeadProduct head_product(const Place& head, const at::Tensor& hidden, const at::Tensor& labels, Dropout& dropout) {
  auto rows = hidden.reshape({-1, hidden.size(-1)});
  auto flat = labels.reshape({-1});
  auto counted = flat.ge(0).nonzero().squeeze(1);  // where the labels are: a GPU need not be waited for
  const bool all = counted.size(0) == flat.size(0);
  if (!all) flat = flat.index_select(0, counted);
  flat = flat.to(rows.device());
  counted = counted.to(rows.device());
  if (!all) rows = rows.index_select(0, counted);
  const auto& in = head.injected;
  if (!in.fixed.empty()) rows = rows.to(at::kFloat);  // and with them the whole head
  rows = rescaled(in.rescale, Rescale::Of::Input, rows);
  const auto type = rows.scalar_type();
  auto weight = parameters(head, type).first;
  if (const auto& pair = in.low_rank) {
    // [h | s·hAᵀ] [W | B]ᵀ: the pairs ride in one product, so that the chunks stay as they are.
    std::vector<at::Tensor> left{rows}, right{weight.to(type)};
    auto ride = [&](const LowRank& one, const at::Tensor& A, const at::Tensor& B) {
      left.push_back(at::linear(dropout.apply(rows, one.dropout), (A * one.scale).to(type)));
      right.push_back(B.to(type));
    };
    const bool scaled = pair->inner.defined();
    ride(*pair, scaled ? pair->A * pair->inner.unsqueeze(1) : pair->A,
         scaled ? pair->B * pair->outer.unsqueeze(1) : pair->B);
    for (const auto& side : in.fixed) ride(side, side.A, side.B);
    rows = at::cat(left, 1);
    const auto factors = pair->magnitude.defined() ? row_factors(in, weight) : at::Tensor();
    weight = at::cat(right, 1);
    if (factors.defined()) weight = weight * factors.to(type).unsqueeze(1);
  }
  if (in.rescale && in.rescale->of == Rescale::Of::Output) weight = weight * in.rescale->by.to(type).unsqueeze(1);
  return {rows, weight, flat, counted};
}

}  // namespace

at::Tensor head_loss(const Place& head, const at::Tensor& hidden, const at::Tensor& labels, Dropout& dropout,
                     double soft_cap, Kernels kernels) {
  const auto of = head_product(head, hidden, labels, dropout);
  return chunked_cross_entropy(of.rows, of.weight, of.labels, default_chunk_rows(of.weight.size(0)), soft_cap, kernels);
}

at::Tensor head_label_losses(const Place& head, const at::Tensor& hidden, const at::Tensor& labels, Dropout& dropout,
                             double soft_cap) {
  const auto of = head_product(head, hidden, labels, dropout);
  const auto nats =
      chunked_label_losses(of.rows, of.weight, of.labels, default_chunk_rows(of.weight.size(0)), soft_cap);
  return at::zeros({labels.numel()}, nats.options()).index_put({of.counted}, nats).view(labels.sizes());
}

}  // namespace hansa::nn
