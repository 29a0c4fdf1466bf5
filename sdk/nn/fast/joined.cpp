#include "nn/fast/joined.hpp"

#include <algorithm>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/Parallel.h>
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
  written_.clear();
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
  at::parallel_for(0, source.size(0), 512,
                   [&](std::int64_t first, std::int64_t last) { passes<T>().cast(job, first, last); });
}

}  // namespace

void Joined::take(const Pairs& pairs, at::ScalarType type) {
  hold(pairs.columns, type);
  columns_ = pairs.columns;
  ++takes_;
  if (columns_ == 0) return;
  auto beside = joined_.narrow(1, in_, columns_);
  std::vector<Written> now;
  for (const auto& pair : pairs.all) now.push_back({pair.column, pair.rank, pair.row});
  if (now != written_) beside.zero_();  // what no pair writes stays 0 as long as they stand where they stood
  written_ = std::move(now);
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

namespace {

// factor * byᵀ x [columns of by, columns of x] in fp32, for a few columns of `by`.
template <class T>
at::Tensor thin_product(const at::Tensor& by, const at::Tensor& x, double factor) {
  const auto held = at::empty({by.size(0), by.size(1)}, by.options().dtype(at::kFloat));
  auto sum = at::empty({by.size(1), x.size(1)}, held.options());
  passes<T>().thin_factor(static_cast<const T*>(by.const_data_ptr()), by.stride(0), by.size(0), by.size(1),
                          held.template data_ptr<float>());
  const ThinProductJob<T> job{.by = held.template const_data_ptr<float>(),
                              .x = static_cast<const T*>(x.const_data_ptr()),
                              .sum = sum.data_ptr<float>(),
                              .x_stride = x.stride(0),
                              .sum_stride = sum.size(1),
                              .rows = x.size(0),
                              .columns = by.size(1),
                              .factor = static_cast<float>(factor)};
  constexpr std::int64_t kStrip = 64;  // columns: a cache line of x or two
  at::parallel_for(0, (x.size(1) + kStrip - 1) / kStrip, 1, [&](std::int64_t first, std::int64_t last) {
    passes<T>().low_rank_product(job, first * kStrip, std::min(last * kStrip, x.size(1)));
  });
  return sum;
}

at::Tensor product(const at::Tensor& by, const at::Tensor& x, double factor) {
  constexpr std::int64_t kThin = 32;
  if (by.size(1) > kThin) return at::mm(by.t(), x).to(at::kFloat).mul_(factor);
  return x.scalar_type() == at::kFloat ? thin_product<float>(by, x, factor) : thin_product<Half>(by, x, factor);
}

}  // namespace

PairGradients Joined::pairs_backward(const at::Tensor& dx, const at::Tensor& dy, const at::Tensor& x,
                                     const Pairs& pairs) const {
  PairGradients result;
  if (columns_ == 0) return result;
  const bool any_a = std::ranges::any_of(pairs.all, [](const auto& pair) { return pair.A.requires_grad(); });
  const auto of_a = any_a ? product(dx.narrow(1, in_, columns_), x.narrow(1, 0, in_), 1) : at::Tensor();
  for (const auto& pair : pairs.all) {
    at::Tensor a, b;
    if (pair.A.requires_grad()) a = of_a.narrow(0, pair.column, pair.rank);
    if (pair.B.requires_grad())
      b = product(x.narrow(1, in_ + pair.column, pair.rank), dy.narrow(1, pair.row, pair.out), pair.scale)
              .t()
              .contiguous();
    result.A.push_back(a);
    result.B.push_back(b);
  }
  return result;
}

}  // namespace hansa::nn::fast
