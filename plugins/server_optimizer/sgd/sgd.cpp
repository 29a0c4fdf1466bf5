#include "sgd.hpp"

#include <stdexcept>

#include <hansa/plugin.hpp>

namespace hansa::sgd {
namespace {

float* writable(at::Tensor& tensor, std::int64_t count) {
  if (tensor.scalar_type() != at::kFloat || !tensor.is_contiguous() || tensor.numel() != count)
    throw std::invalid_argument("sgd: parameter, delta and state must be contiguous fp32 of one size");
  return tensor.mutable_data_ptr<float>();
}

}  // namespace

std::uint64_t traits(const Params& params) {
  if (params.momentum != 0) return HANSA_TRAIT_KEEPS_HISTORY | HANSA_TRAIT_STATELESS;
  return params.learning_rate == 1 ? HANSA_TRAIT_PLAIN_AVERAGING | HANSA_TRAIT_STATELESS : HANSA_TRAIT_STATELESS;
}

std::vector<TensorSpec> Sgd::state(const TensorSpec& parameter) const {
  if (params_.momentum == 0) return {};
  return {{"velocity", DType::f32, parameter.shape}};
}

void Sgd::step(std::string_view, Index, at::Tensor& parameter, const at::Tensor& delta, std::span<at::Tensor> state) {
  const auto count = parameter.numel();
  float* x = writable(parameter, count);
  if (delta.scalar_type() != at::kFloat || !delta.is_contiguous() || delta.numel() != count ||
      state.size() != (params_.momentum == 0 ? 0u : 1u))
    throw std::invalid_argument("sgd: parameter, delta and state must be contiguous fp32 of one size");
  const float* d = delta.const_data_ptr<float>();
  const auto rate = static_cast<float>(params_.learning_rate), momentum = static_cast<float>(params_.momentum);
  if (params_.momentum == 0) {
    for (std::int64_t i = 0; i < count; ++i) x[i] += rate * d[i];
    return;
  }
  float* v = writable(state[0], count);
  for (std::int64_t i = 0; i < count; ++i) v[i] = momentum * v[i] + d[i];
  if (params_.nesterov)
    for (std::int64_t i = 0; i < count; ++i) x[i] += rate * (d[i] + momentum * v[i]);
  else
    for (std::int64_t i = 0; i < count; ++i) x[i] += rate * v[i];
}

}  // namespace hansa::sgd

HANSA_PLUGIN(org_hansa_sgd, "0.1.0") {
  using namespace hansa;
  plugin.vendor("Hansa").license("Apache-2.0");
  plugin.add<sgd::Sgd, sgd::Params>("sgd", "Adds the aggregate to the model; with momentum where asked.")
      .doc(
          "With learning rate 1 and no momentum: plain federated averaging. With momentum: FedAvgM (arXiv 1909.06335); "
          "with "
          "nesterov as well and a rate of about 0.7: the outer optimiser of DiLoCo (arXiv 2311.08105). No dampening.")
      .maturity(Maturity::Beta)
      .traits([](const sgd::Params& p) { return sgd::traits(p); })
      .param(&sgd::Params::learning_rate, "learning_rate", "Share of the aggregate that is added.", more_than(0),
             at_most(100))
      .param(&sgd::Params::momentum, "momentum", "Share of the last rounds' direction that is kept.", at_least(0),
             less_than(1))
      .param(&sgd::Params::nesterov, "nesterov", "Look ahead along the momentum.")
      .check([](const sgd::Params& p, Problems& problems) {
        if (p.nesterov && p.momentum == 0)
          problems.add("nesterov", "nesterov without momentum changes nothing",
                       "Set momentum, for example 0.9, or leave nesterov out.");
      });
}
