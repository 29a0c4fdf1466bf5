#include "adapters/principal.hpp"

#include <algorithm>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_qr.h>
#include <ATen/ops/linalg_svd.h>
#include <ATen/ops/mm.h>

#include <nn/dropout.hpp>

namespace hansa::adapters {

namespace {
constexpr std::int64_t kBeyond = 10;  // columns beside those wanted
constexpr int kRounds = 8;

at::Tensor basis(const at::Tensor& of) { return std::get<0>(at::linalg_qr(of, "reduced")); }
}  // namespace

std::pair<at::Tensor, at::Tensor> principal_factors(const at::Tensor& given, std::int64_t rank, std::uint64_t seed) {
  const at::NoGradGuard no_grad;
  const auto weight = given.detach().to(at::kFloat);
  const auto columns = std::min({rank + kBeyond, weight.size(0), weight.size(1)});
  auto sample = at::empty({weight.size(1), columns}, at::kFloat).normal_(0, 1, nn::make_generator(seed));
  auto range = basis(at::mm(weight, sample));
  for (int i = 0; i < kRounds; ++i) range = basis(at::mm(weight, basis(at::mm(weight.t(), range))));
  const auto [left, values, right] = at::linalg_svd(at::mm(range.t(), weight), /*full_matrices=*/false);
  const auto root = values.narrow(0, 0, rank).sqrt();
  return {at::mm(range, left.narrow(1, 0, rank)).mul(root).contiguous(),
          right.narrow(0, 0, rank).mul(root.unsqueeze(1)).contiguous()};
}

}  // namespace hansa::adapters
