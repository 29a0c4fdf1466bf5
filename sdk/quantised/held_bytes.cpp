#include "quantised/held_bytes.hpp"

#include <algorithm>

#include "quantised/stored_weight.hpp"

namespace hansa::quantised {

std::uint64_t held_bytes(const std::vector<Module>& modules, DType compute, BaseDtype base,
                         const std::vector<bool>& quantised) {
  std::uint64_t held = 0, largest = 0;
  for (std::size_t i = 0; i < modules.size(); ++i) {
    const auto& module = modules[i];
    if (module.kind == Module::Kind::Attention) continue;
    const bool flat = module.kind == Module::Kind::Norm;
    const bool small = base != BaseDtype::Compute && quantised[i];
    const auto rows = module.out, columns = flat ? std::int64_t{1} : module.in;
    const auto numbers = static_cast<std::uint64_t>(rows) * static_cast<std::uint64_t>(columns);
    held += bytes_of(small ? base : BaseDtype::Compute, rows, columns, size_of(compute));
    held += module.bias ? static_cast<std::uint64_t>(module.out) * size_of(compute) : 0;
    if (small) largest = std::max(largest, numbers * sizeof(float));  // it is made smaller from fp32
  }
  return held + largest;
}

}  // namespace hansa::quantised
