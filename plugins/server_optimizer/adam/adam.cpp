#include "adam.hpp"

#include <cmath>
#include <stdexcept>

#include <hansa/plugin.hpp>

namespace hansa::adam {
namespace {

void require_fits(const at::Tensor& tensor, std::int64_t count) {
  if (tensor.scalar_type() != at::kFloat || !tensor.is_contiguous() || tensor.numel() != count)
    throw std::invalid_argument("adam: parameter, delta and both moments must be contiguous fp32 of one size");
}

}  // namespace

std::vector<TensorSpec> Adam::state(const TensorSpec& parameter) const {
  return {{"first_moment", DType::f32, parameter.shape}, {"second_moment", DType::f32, parameter.shape}};
}

void Adam::step(std::string_view, Index, at::Tensor& parameter, const at::Tensor& delta, std::span<at::Tensor> state) {
  if (state.size() != 2) throw std::invalid_argument("adam: two state tensors expected");
  const auto count = parameter.numel();
  for (const auto* tensor : {&std::as_const(parameter), &delta, &std::as_const(state[0]), &std::as_const(state[1])})
    require_fits(*tensor, count);
  float* x = parameter.mutable_data_ptr<float>();
  float* m = state[0].mutable_data_ptr<float>();
  float* v = state[1].mutable_data_ptr<float>();
  const float* d = delta.const_data_ptr<float>();
  const auto rate = static_cast<float>(params_.learning_rate), tau = static_cast<float>(params_.tau);
  const auto keep1 = static_cast<float>(params_.beta1), take1 = static_cast<float>(1 - params_.beta1);
  const auto keep2 = static_cast<float>(params_.beta2), take2 = static_cast<float>(1 - params_.beta2);
  for (std::int64_t i = 0; i < count; ++i) m[i] = keep1 * m[i] + take1 * d[i];
  if (params_.second_moment == SecondMoment::Adam)
    for (std::int64_t i = 0; i < count; ++i) v[i] = keep2 * v[i] + take2 * (d[i] * d[i]);
  else
    for (std::int64_t i = 0; i < count; ++i) {
      const float square = d[i] * d[i];
      v[i] += take2 * square * static_cast<float>((square > v[i]) - (square < v[i]));
    }
  for (std::int64_t i = 0; i < count; ++i) x[i] += rate * m[i] / (std::sqrt(v[i]) + tau);
}

}  // namespace hansa::adam

HANSA_PLUGIN(org_hansa_adam, "0.1.0") {
  using namespace hansa;
  plugin.vendor("Hansa").license("Apache-2.0");
  plugin.add<adam::Adam, adam::Params>("adam", "Adaptive server steps: FedAdam, or FedYogi by choice.")
      .doc(
          "arXiv 2003.00295, algorithm 2, without bias correction, as there; both moments start at zero. tau is the "
          "degree of "
          "adaptivity: large values approach momentum.")
      .maturity(Maturity::Beta)
      .traits(HANSA_TRAIT_KEEPS_HISTORY | HANSA_TRAIT_STATELESS)
      .param(&adam::Params::learning_rate, "learning_rate", "Largest usual change of one element in a round.",
             more_than(0), at_most(100))
      .param(&adam::Params::beta1, "beta1", "Share of the first moment that is kept.", at_least(0), less_than(1))
      .param(&adam::Params::beta2, "beta2", "Share of the second moment that is kept.", at_least(0), less_than(1))
      .param(&adam::Params::tau, "tau", "Added to the root of the second moment.", more_than(0))
      .param(&adam::Params::second_moment, "second_moment",
             "How the second moment moves: adam forgets at a fixed rate, yogi additively.", choices({"adam", "yogi"}));
}
