#include "factors/factors.hpp"

#include <algorithm>
#include <vector>

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_qr.h>
#include <ATen/ops/linalg_svd.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/zeros.h>

namespace hansa::factors {
namespace {

// Same product, and left columns that point one way: LAPACK leaves the sign open.
void fix_signs(Spectrum& spectrum) {
  const auto at_peak = spectrum.left.gather(0, spectrum.left.abs().argmax(0, true));  // [1, n]
  const auto sign = at::ones_like(at_peak).masked_fill_(at_peak.lt(0), -1);
  spectrum.left.mul_(sign);
  spectrum.right.mul_(sign.t());
}

}  // namespace

Factors stack(std::span<const Weighted> parts) {
  std::int64_t m = 0, d = 0, k = 0;
  for (const auto& part : parts) {
    d = part.factors.left.size(0);
    k = part.factors.right.size(1);
    m += part.factors.left.size(1);
  }
  // Written column block by column block into one allocation: no second copy of all parts at once.
  Factors all{at::empty({m, d}, at::kDouble), at::empty({m, k}, at::kDouble)};
  std::int64_t first = 0;
  for (const auto& part : parts) {
    const auto count = part.factors.left.size(1);
    all.left.narrow(0, first, count).copy_(part.factors.left.t()).mul_(part.weight);
    all.right.narrow(0, first, count).copy_(part.factors.right);
    first += count;
  }
  all.left = all.left.t();
  return all;
}

Spectrum decompose(const Factors& factors, double tolerance) {
  const auto d = factors.left.size(0), m = factors.left.size(1), k = factors.right.size(1);
  if (std::min({d, m, k}) == 0)
    return {at::zeros({d, 0}, at::kDouble), at::zeros({0}, at::kDouble), at::zeros({0, k}, at::kDouble), 0};
  const auto [left_basis, left_core] = at::linalg_qr(factors.left.to(at::kDouble));
  const auto [right_basis, right_core] = at::linalg_qr(factors.right.t().to(at::kDouble));
  const auto [u, values, v] = at::linalg_svd(at::mm(left_core, right_core.t()), false);
  Spectrum spectrum{at::mm(left_basis, u), values, at::mm(v, right_basis.t())};
  fix_signs(spectrum);
  const auto kept = values.gt(values[0].mul(tolerance));  // values are sorted
  spectrum.rank = kept.sum().item<std::int64_t>();
  spectrum.values.narrow(0, spectrum.rank, values.size(0) - spectrum.rank).zero_();
  return spectrum;
}

std::uint64_t decompose_workspace(std::int64_t d, std::int64_t m, std::int64_t k) {
  // The stack; LAPACK's copy of a side, its basis and core; both bases; the vectors of the core and those of the product.
  const auto sides = static_cast<std::uint64_t>(m * (d + k)), core = static_cast<std::uint64_t>(m * m);
  return (4 * sides + 7 * core) * sizeof(double);
}

Factors balanced(const Spectrum& spectrum, std::int64_t most) {
  const auto count = std::min(most, spectrum.rank);
  const auto root = spectrum.values.narrow(0, 0, count).sqrt();
  return {spectrum.left.narrow(1, 0, count).mul(root).to(at::kFloat).contiguous(),
          spectrum.right.narrow(0, 0, count).mul(root.unsqueeze(1)).to(at::kFloat).contiguous()};
}

Factors merge(std::span<const Factors> parts, double tolerance) {
  if (parts.empty()) return {};
  const auto d = parts[0].left.size(0), k = parts[0].right.size(1), enough = 2 * std::min(d, k);
  std::vector<Weighted> waiting;
  std::int64_t columns = 0;
  Spectrum spectrum;
  auto fold = [&] { spectrum = decompose(stack(waiting), tolerance); };
  for (const auto& part : parts) {
    if (!waiting.empty() && columns + part.left.size(1) > enough) {
      fold();
      // In double between the steps: fp32 comes once, at the end.
      const auto held = spectrum.values.narrow(0, 0, spectrum.rank);
      waiting = {{{spectrum.left.narrow(1, 0, spectrum.rank).mul(held), spectrum.right.narrow(0, 0, spectrum.rank)}}};
      columns = spectrum.rank;
    }
    waiting.push_back({part});
    columns += part.left.size(1);
  }
  fold();
  return balanced(spectrum, spectrum.rank);
}

at::Tensor complete(const at::Tensor& rows, std::int64_t count, std::uint64_t seed) {
  const auto more = count - rows.size(0);
  if (more <= 0) return rows;
  auto random = at::empty({more, rows.size(1)}, at::kDouble).normal_(0, 1, at::detail::createCPUGenerator(seed));
  const auto basis = std::get<0>(at::linalg_qr(at::cat({rows.to(at::kDouble), random}).t()));
  return at::cat({rows.to(at::kDouble), basis.narrow(1, rows.size(0), more).t()});
}

}  // namespace hansa::factors
