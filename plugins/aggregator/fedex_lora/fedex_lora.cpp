#include "fedex_lora.hpp"

#include <map>

#include <ATen/ops/empty.h>
#include <ATen/ops/sub.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <factors/factors.hpp>
#include <factors/pairs.hpp>
#include <hansa/layouts.hpp>
#include <hansa/plugin.hpp>

#include "base/error.hpp"

namespace hansa::fedex_lora {
namespace {

constexpr std::string_view kName = "fedex_lora", kResidual = "residual";
constexpr std::string_view kLeft = ".residual_B", kRight = ".residual_A";
constexpr std::size_t kA = 0, kB = 1;
constexpr double kNothing = 1e-8;  // of the largest singular value: below what fp32 factors can say

std::vector<at::Tensor> deltas_of(const Updates& updates, std::size_t member) {
  std::vector<at::Tensor> deltas;
  const auto& spec = updates.tensor(member);
  for (std::size_t client = 0; client < updates.clients(); ++client) {
    deltas.push_back(updates.delta(client, member));
    if (deltas.back().sizes() != at::IntArrayRef(spec.shape))
      throw Error(fmt::format("aggregator {}: '{}' differs in shape between clients; all nodes must train one rank",
                              kName, spec.name));
  }
  return deltas;
}

// In double. Two steps, not one fused: the same bits in every lane and tail.
at::Tensor mean_of(const std::vector<at::Tensor>& deltas, const std::vector<double>& shares) {
  auto sum = at::zeros(deltas.front().sizes(), at::kDouble);
  for (std::size_t i = 0; i < deltas.size(); ++i) sum.add_(deltas[i].to(at::kDouble).mul_(shares[i]));
  return sum;
}

// Σ p_i (B_i - b)(A_i - a) = Σ_{i<K} p_i (B_i - b)(A_i - A_K): the p_i (B_i - b) sum to zero, so any one matrix may be taken
// from every A_i, and with A_K the last client's columns are gone.
factors::Factors residual_of(const std::vector<at::Tensor>& A, const std::vector<at::Tensor>& B, const at::Tensor& b,
                             const std::vector<double>& shares, double scale) {
  const auto rank = A[0].size(0), others = static_cast<std::int64_t>(A.size()) - 1;
  factors::Factors residual{at::empty({B[0].size(0), others * rank}, at::kFloat),
                            at::empty({others * rank, A[0].size(1)}, at::kFloat)};
  for (std::int64_t i = 0; i < others; ++i) {
    const auto at = static_cast<std::size_t>(i);
    residual.left.narrow(1, i * rank, rank).copy_(B[at].to(at::kDouble).sub_(b).mul_(scale * shares[at]));
    residual.right.narrow(0, i * rank, rank).copy_(A[at].to(at::kDouble).sub_(A.back()));
  }
  if (residual.left.size(1) <= std::min(residual.left.size(0), residual.right.size(1))) return residual;
  return factors::merge(std::vector{residual}, kNothing);  // more columns than the matrix has
}

}  // namespace

Exchange FedExLora::exchange(const Layout& trainable, const RoundPlan&, const NodeFacts&) const {
  Exchange exchange{.roles = std::vector<Role>(trainable.tensors.size(), Role::Shared)};
  Channel residual{.name = std::string(kResidual), .keep = Keep::Log};
  auto& layout = residual.layout;
  for (const auto& pair : factors::pairs_of(trainable, kName)) {
    const auto &A = trainable.tensors.at(pair.A), &B = trainable.tensors.at(pair.B);
    const std::string module(module_of(A.name));
    const auto first = static_cast<Index>(layout.tensors.size());
    layout.tensors.push_back({module + std::string(kRight), DType::f32, {-1, A.shape.at(1)}});
    layout.tensors.push_back({module + std::string(kLeft), DType::f32, {B.shape.at(0), -1}});
    layout.groups.push_back({std::string(factors::kPairKind), {first, first + 1}, 1});
  }
  exchange.down.push_back(std::move(residual));
  return exchange;
}

std::uint64_t FedExLora::workspace(const Layout& layout, const Group& group, std::size_t clients) const {
  if (group.members.size() != 2) return 0;  // refused by exchange()
  const auto &A = layout.tensors.at(group.members[kA]), &B = layout.tensors.at(group.members[kB]);
  const auto out = B.shape.at(0), in = A.shape.at(1), rank = A.shape.at(0);
  const auto pair = static_cast<std::uint64_t>(A.elements() + B.elements());
  const auto columns = clients < 2 ? 0 : static_cast<std::int64_t>(clients - 1) * rank;
  // All changes and the stacked factors in fp32; both means and one client's pair in double, twice for its differences.
  const auto held = (2 * clients + 1) * pair * sizeof(float) + 3 * pair * sizeof(double);
  return held + (columns > std::min(out, in) ? factors::decompose_workspace(out, columns, in) : 0);
}

void FedExLora::reduce(const Updates& updates, Results& results) {
  factors::require_pair(updates, kName);
  const auto shares = factors::shares_of(updates, kName);
  if (shares.empty()) {
    for (auto member : {kA, kB}) results.put(member, at::zeros(updates.tensor(member).shape, at::kFloat));
    return;
  }
  // Changes stand for values: all clients were sent the same pair, which differences of clients do not contain.
  const auto A = deltas_of(updates, kA), B = deltas_of(updates, kB);
  const auto b = mean_of(B, shares);
  results.put(kA, mean_of(A, shares).to(at::kFloat));
  results.put(kB, b.to(at::kFloat));
  if (shares.size() == 1) return;  // one client's product is the mean of the products
  const auto residual = residual_of(A, B, b, shares, updates.scale(""));
  const std::string module(module_of(updates.tensor(kA).name));
  results.append(kResidual, module + std::string(kRight), residual.right);
  results.append(kResidual, module + std::string(kLeft), residual.left);
}

std::optional<NamedTensors> FedExLora::compact(std::string_view channel, std::span<const Download> entries) const {
  if (channel != kResidual) return std::nullopt;
  std::map<std::string, std::vector<factors::Factors>, std::less<>> modules;
  for (const auto& entry : entries) {
    if (entry.anew) modules.clear();
    for (const auto& [name, tensor] : entry.tensors) {
      const bool right = name.ends_with(kRight);
      if (!right && !name.ends_with(kLeft))
        throw Error(fmt::format("aggregator {}: '{}' is no tensor of channel '{}'", kName, name, kResidual));
      auto& parts = modules[std::string(module_of(name))];
      const auto missing = [&](const factors::Factors& part) { return !(right ? part.right : part.left).defined(); };
      if (parts.empty() || !missing(parts.back())) parts.emplace_back();
      (right ? parts.back().right : parts.back().left) = tensor;
    }
  }
  NamedTensors compacted;
  for (const auto& [module, parts] : modules) {
    for (const auto& part : parts)
      if (!part.left.defined() || !part.right.defined())
        throw Error(fmt::format("aggregator {}: a factor of '{}' is missing in the log", kName, module));
    auto merged = factors::merge(parts, kNothing);
    compacted.emplace_back(module + std::string(kRight), std::move(merged.right));
    compacted.emplace_back(module + std::string(kLeft), std::move(merged.left));
  }
  return compacted;
}

}  // namespace hansa::fedex_lora

HANSA_PLUGIN(org_hansa_fedex_lora, "0.1.0") {
  using namespace hansa;
  plugin.vendor("Hansa").license("Apache-2.0");
  plugin
      .add<fedex_lora::FedExLora>("fedex_lora",
                                  "The exact mean of low-rank updates: means of A and B, and a residual as factors.")
      .doc(
          "arXiv 2410.09432. The residual goes to every node for its frozen weights, at most (clients - 1) * r columns "
          "a "
          "round, and it shows single nodes' updates to all. Needs the plain server optimiser.")
      .groups("lora")
      .traits(HANSA_TRAIT_EXACT | HANSA_TRAIT_NEEDS_INDIVIDUALS | HANSA_TRAIT_RELEASES_INDIVIDUALS |
              HANSA_TRAIT_STATELESS);
}
