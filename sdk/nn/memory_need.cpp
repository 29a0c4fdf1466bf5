#include "nn/memory_need.hpp"

#include <c10/core/CachingDeviceAllocator.h>
#include <fmt/format.h>

#include <quantised/held_bytes.hpp>

#include "base/error.hpp"

namespace hansa::nn {
namespace {

std::string gigabytes(std::uint64_t bytes) { return fmt::format("{:.2f} GB", static_cast<double>(bytes) / 1e9); }

std::string way(BaseDtype base, DType compute) {
  const auto compute_part = fmt::format("compute = \"{}\"", name_of(compute));
  if (base == BaseDtype::Compute) return compute_part;
  return fmt::format("base_dtype = \"{}\" with {}", base_dtype_names()[static_cast<std::size_t>(base)], compute_part);
}

}  // namespace

FreeMemory free_memory_on(at::Device device) {
  if (device.is_cpu() || device.is_meta()) return free_memory();
  return {c10::getDeviceAllocator(device.type())->getMemoryInfo(device.index()).first, device.str()};
}

std::string what_would_fit(const std::vector<Module>& modules, const std::vector<bool>& quantisable,
                           std::uint64_t available) {
  std::string least;
  for (const auto& [base, compute] :
       {std::pair{BaseDtype::Compute, DType::bf16}, {BaseDtype::Int8, DType::bf16}, {BaseDtype::Nf4, DType::bf16}}) {
    const auto need = quantised::held_bytes(modules, compute, base, quantisable);
    if (need <= available) return fmt::format("{} takes {} and fits", way(base, compute), gigabytes(need));
    least =
        fmt::format("even {} takes {}: it needs a machine or a device with more", way(base, compute), gigabytes(need));
  }
  return least;
}

void require_memory(const std::string& checkpoint, const std::vector<Module>& modules, const Opening& opening,
                    const std::vector<bool>& quantisable, const FreeMemory& free) {
  const auto need = quantised::held_bytes(modules, opening.compute, opening.base, quantisable);
  if (need <= free.bytes) return;
  throw Error(fmt::format("{}: with {} the weights alone take {}, but {} leaves {}; {}", checkpoint,
                          way(opening.base, opening.compute), gigabytes(need), free.limit, gigabytes(free.bytes),
                          what_would_fit(modules, quantisable, free.bytes)));
}

}  // namespace hansa::nn
