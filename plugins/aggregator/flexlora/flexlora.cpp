#include "flexlora.hpp"

#include <algorithm>

#include <ATen/ops/mul.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <factors/factors.hpp>
#include <factors/pairs.hpp>
#include <hansa/plugin.hpp>

#include "base/error.hpp"

namespace hansa::flexlora {
namespace {

constexpr std::string_view kName = "flexlora";
constexpr std::size_t kA = 0, kB = 1;
constexpr double kNothing = 1e-8;  // of the largest singular value

// Σ p s B A of the clients, as stacked factors.
factors::Factors mean_product(const Updates& updates) {
  const auto shares = factors::shares_of(updates, kName);
  std::vector<factors::Weighted> parts;
  for (std::size_t client = 0; client < updates.clients(); ++client)
    parts.push_back({{updates.value(client, kB), updates.value(client, kA)},
                     shares[client] * updates.scale(updates.who(client).view)});
  return factors::stack(parts);
}

}  // namespace

Exchange FlexLora::exchange(const Layout& trainable, const RoundPlan&, const NodeFacts& node) const {
  factors::pairs_of(trainable, kName);  // refuses what is none
  return {.view = node.rank == 0 ? std::string() : fmt::format("rank{:g}", node.rank),
          .roles = std::vector<Role>(trainable.tensors.size(), Role::Shared)};
}

std::uint64_t FlexLora::workspace(const Layout& layout, const Group& group, std::size_t clients) const {
  if (group.members.size() != 2) return 0;  // refused by exchange()
  const auto &A = layout.tensors.at(group.members[kA]), &B = layout.tensors.at(group.members[kB]);
  const auto out = B.shape.at(0), in = A.shape.at(1), rank = A.shape.at(0);
  // All values in fp32; the decomposition; one view's factors in double and fp32.
  const auto pair = static_cast<std::uint64_t>(A.elements() + B.elements());
  return clients * pair * sizeof(float) +
         factors::decompose_workspace(out, static_cast<std::int64_t>(clients) * rank, in) + 3 * pair * sizeof(double);
}

void FlexLora::reduce(const Updates& updates, Results& results) {
  factors::require_pair(updates, kName);
  if (updates.clients() == 0) throw Error("aggregator flexlora: no update was accepted; there is nothing to decompose");
  const auto spectrum = factors::decompose(mean_product(updates), kNothing);
  for (const auto& view : updates.views()) put_view(spectrum, updates, view, results);
}

// A has orthonormal rows and B all of the size: then the gradient of B, and with it the speed of training, does not shrink
// with the product, as it would with the root of a small singular value on both sides. Directions that the mean does not
// have keep a row of A and a zero column of B, which is how a pair starts.
void FlexLora::put_view(const factors::Spectrum& spectrum, const Updates& updates, const std::string& view,
                        Results& results) const {
  const auto& spec = updates.tensor(kA, view);
  const auto rank = spec.shape.at(0), found = std::min(rank, spectrum.values.size(0));
  const auto A = factors::complete(spectrum.right.narrow(0, 0, found), rank, host_.seed("directions of " + spec.name));
  auto B = at::zeros({spectrum.left.size(0), rank}, at::kDouble);
  B.narrow(1, 0, found)
      .copy_(at::mul(spectrum.left.narrow(1, 0, found), spectrum.values.narrow(0, 0, found)).div_(updates.scale(view)));
  results.put_for(view, kA, A.to(at::kFloat).contiguous());
  results.put_for(view, kB, B.to(at::kFloat));
}

}  // namespace hansa::flexlora

HANSA_PLUGIN(org_hansa_flexlora, "0.1.0") {
  using namespace hansa;
  plugin.vendor("Hansa").license("Apache-2.0");
  plugin
      .add<flexlora::FlexLora>("flexlora",
                               "Nodes of different ranks: each gets the best factors of its rank of the mean product.")
      .doc(
          "arXiv 2402.11505. A node's rank comes from its `rank` in [[node]]; alpha is the adapter's, so that the "
          "scale "
          "follows the rank. Needs the plain server optimiser.")
      .groups("lora")
      .traits(HANSA_TRAIT_EXACT | HANSA_TRAIT_NEEDS_INDIVIDUALS | HANSA_TRAIT_RANK_AWARE | HANSA_TRAIT_ORDER_FREE |
              HANSA_TRAIT_STATELESS);
}
