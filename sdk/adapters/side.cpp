#include "adapters/side.hpp"

#include <algorithm>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/mm.h>

namespace hansa::adapters {

void Side::add(const at::Tensor& B, const at::Tensor& A) {
  at::NoGradGuard no_grad;
  if (A.size(0) == 0) return;
  const auto device = empty() ? B.device() : B_.device();  // a model may have brought them to its own
  const auto more_B = B.detach().to(device, at::kFloat), more_A = A.detach().to(device, at::kFloat);
  const auto out = B.size(0), in = A.size(1);
  if (whole_) {
    (in <= out ? B_ : A_).addmm_(more_B, more_A);
    return;
  }
  B_ = empty() ? more_B.clone() : at::cat({B_, more_B}, 1);
  A_ = empty() ? more_A.clone() : at::cat({A_, more_A}, 0);
  whole_ = A_.size(0) >= std::min(in, out);
  if (!whole_) return;
  const auto product = at::mm(B_, A_), identity = at::eye(std::min(in, out), B_.options());
  B_ = in <= out ? product : identity;
  A_ = in <= out ? identity : product;
}

}  // namespace hansa::adapters
