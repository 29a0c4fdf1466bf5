#include "nn/fast/joined.hpp"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/TensorOperators.h>

#include "nn/fast/passes.hpp"

namespace hansa::nn::fast {

Joined::Joined(std::vector<Place*> places) : places_(std::move(places)) {
  for (const auto* place : places_) {
    in_ = place->module.in;
    rows_.push_back(out_);
    out_ += place->module.out;
  }
}

Pairs Joined::pairs() const {
  Pairs result;
  for (std::size_t i = 0; i < places_.size(); ++i) {
    const auto& pair = places_[i]->injected.low_rank;
    if (!pair) continue;
    const auto rank = pair->A.size(0);
    result.all.push_back({pair->A, pair->B, pair->scale, result.columns, rank, rows_[i], places_[i]->module.out});
    result.columns += rank;
  }
  return result;
}

void Joined::hold(std::int64_t columns, at::ScalarType type) {
  const bool own = joined_.defined() && places_.front()->weight.is_alias_of(joined_);
  if (own && columns <= a_.size(0)) return;
  auto wider = at::empty({out_, in_ + columns}, at::TensorOptions().dtype(type));
  for (std::size_t i = 0; i < places_.size(); ++i) {
    auto part = wider.narrow(0, rows_[i], places_[i]->module.out).narrow(1, 0, in_);
    part.copy_(places_[i]->weight);
    places_[i]->weight = part;
  }
  joined_ = wider;
  a_ = at::empty({columns, in_}, wider.options());
}

namespace {

template <class T>
void cast(const at::Tensor& from, at::Tensor to, double scale) {
  const auto source = from.detach().to(at::kFloat).contiguous();
  const CastJob<T> job{.from = source.const_data_ptr<float>(),
                       .to = static_cast<T*>(to.data_ptr()),
                       .from_stride = source.size(1),
                       .to_stride = to.stride(0),
                       .width = source.size(1),
                       .scale = static_cast<float>(scale)};
  passes<T>().cast(job, 0, source.size(0));
}

}  // namespace

void Joined::take(const Pairs& pairs, at::ScalarType type) {
  hold(pairs.columns, type);
  columns_ = pairs.columns;
  if (columns_ == 0) return;
  auto beside = joined_.narrow(1, in_, columns_);
  if (pairs.all.size() > 1 || places_.size() > 1) beside.zero_();
  for (const auto& pair : pairs.all) {
    auto b = beside.narrow(0, pair.row, pair.out).narrow(1, pair.column, pair.rank);
    auto a = a_.narrow(0, pair.column, pair.rank);
    if (type == at::kFloat) {
      cast<float>(pair.B, b, pair.scale);
      cast<float>(pair.A, a, 1);
    } else {
      cast<Half>(pair.B, b, pair.scale);
      cast<Half>(pair.A, a, 1);
    }
  }
}

void Joined::inner(at::Tensor& x) const {
  if (columns_ == 0) return;
  auto others = x.narrow(1, in_, columns_);
  at::mm_out(others, x.narrow(1, 0, in_), a().t());
}

void Joined::forward(at::Tensor& y, at::Tensor& x) const {
  inner(x);
  at::mm_out(y, x, matrix().t());
}

void Joined::backward(at::Tensor& dx, const at::Tensor& dy, Wanted wanted) const {
  auto d_inner = dx.narrow(1, in_, columns_);
  if (wanted == Wanted::Pairs) {
    if (columns_ > 0) at::mm_out(d_inner, dy, matrix().narrow(1, in_, columns_));
    return;
  }
  at::mm_out(dx, dy, matrix());
  if (columns_ > 0) dx.narrow(1, 0, in_).addmm_(d_inner, a());
}

PairGradients Joined::pairs_backward(const at::Tensor& dx, const at::Tensor& dy, const at::Tensor& x,
                                     const Pairs& pairs) const {
  PairGradients result;
  if (columns_ == 0) return result;
  const auto d_inner = dx.narrow(1, in_, columns_);
  const auto of_a = at::mm(d_inner.t(), x.narrow(1, 0, in_));  // [columns, in]
  for (const auto& pair : pairs.all) {
    const bool a_wanted = pair.A.requires_grad(), b_wanted = pair.B.requires_grad();
    result.A.push_back(a_wanted ? of_a.narrow(0, pair.column, pair.rank).to(pair.A.scalar_type(), false, true)
                                : at::Tensor());
    if (!b_wanted) {
      result.B.emplace_back();
      continue;
    }
    const auto of_b = at::mm(x.narrow(1, in_ + pair.column, pair.rank).t(), dy.narrow(1, pair.row, pair.out));
    result.B.push_back(of_b.t().to(pair.B.scalar_type(), false, true, at::MemoryFormat::Contiguous).mul_(pair.scale));
  }
  return result;
}

}  // namespace hansa::nn::fast
