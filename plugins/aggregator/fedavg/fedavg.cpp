#include "fedavg.hpp"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include <ATen/ops/empty.h>
#include <hansa/plugin.hpp>

namespace hansa::fedavg {
namespace {

void write_weighted(float* sum, const float* delta, std::int64_t count, float weight) {
  for (std::int64_t i = 0; i < count; ++i) sum[i] = weight * delta[i];
}
void add_weighted(float* sum, const float* delta, std::int64_t count, float weight) {
  for (std::int64_t i = 0; i < count; ++i) sum[i] += weight * delta[i];
}

}  // namespace

std::uint64_t FedAvg::workspace(const Layout& layout, const Group& group, std::size_t clients) const {
  std::uint64_t largest = 0;
  for (auto member : group.members)
    largest = std::max(largest, static_cast<std::uint64_t>(layout.tensors.at(member).elements()) * sizeof(float));
  return clients == 0 ? largest : 2 * largest;  // the sum, and one client's delta
}

void FedAvg::reduce(const Updates& updates, Results& results) {
  for (std::size_t member = 0; member < updates.group().members.size(); ++member) {
    const auto& spec = updates.tensor(member);
    auto sum = at::empty(spec.shape, at::TensorOptions().dtype(at::kFloat));
    float* to = sum.mutable_data_ptr<float>();
    const auto count = sum.numel();
    if (updates.clients() == 0 && count > 0) std::memset(to, 0, sum.nbytes());
    for (std::size_t client = 0; client < updates.clients(); ++client) {
      const auto delta = updates.delta(client, member);
      if (delta.sizes() != sum.sizes())
        throw std::invalid_argument("fedavg averages tensors of one shape; '" + spec.name +
                                    "' differs between clients");
      const auto weight = static_cast<float>(updates.who(client).weight);
      (client == 0 ? write_weighted : add_weighted)(to, delta.const_data_ptr<float>(), count, weight);
    }
    results.put(member, sum);
  }
}

}  // namespace hansa::fedavg

HANSA_PLUGIN(org_hansa_fedavg, "0.1.0") {
  using namespace hansa;
  plugin.vendor("Hansa").license("Apache-2.0");
  plugin.add<fedavg::FedAvg>("fedavg", "Weighted mean of the clients' changes (federated averaging).")
      .doc(
          "arXiv 1602.05629. The weights are the host's ([round] weights); the rule returns the weighted sum, and the "
          "host adds "
          "noise where asked and divides.")
      .maturity(Maturity::Beta)
      .traits(HANSA_TRAIT_ADDITIVE | HANSA_TRAIT_ORDER_FREE | HANSA_TRAIT_ELEMENTWISE_MEAN | HANSA_TRAIT_STATELESS);
}
