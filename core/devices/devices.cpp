#include "devices/devices.hpp"

#include <charconv>

#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <fmt/format.h>

namespace hansa {
namespace {

constexpr std::string_view kCuda = "cuda:";

at::Device cuda(std::size_t index) { return {at::kCUDA, static_cast<at::DeviceIndex>(index)}; }

Result<at::Device> not_there(std::string_view asked, const std::string& why) {
  return Result<at::Device>::failure(
      fmt::format("device {} is not there: {}; choose one that is, or \"auto\"", asked, why));
}

}  // namespace

std::string Devices::text() const {
  if (!has_cuda) return "this LibTorch is built without CUDA, so there is the CPU alone (\"cpu\")";
  if (cuda == 0)
    return "LibTorch finds no CUDA device (is the driver loaded, and does CUDA_VISIBLE_DEVICES name one?), so there is "
           "the CPU alone (\"cpu\")";
  if (cuda == 1) return "there are \"cpu\" and \"cuda:0\"";
  return fmt::format("there are \"cpu\" and \"cuda:0\" to \"cuda:{}\"", cuda - 1);
}

Devices devices_here() {
  if (!c10::impl::hasDeviceGuardImpl(at::kCUDA)) return {};
  return {true, static_cast<std::size_t>(c10::impl::getDeviceGuardImpl(at::kCUDA)->deviceCount())};
}

Result<at::Device> device_named(std::string_view asked, const Devices& here, const Neighbours& neighbours) {
  if (asked == "cpu" || (asked == "auto" && here.cuda == 0)) return at::Device(at::kCPU);
  if (asked == "auto") {
    if (neighbours.index < here.cuda) return cuda(neighbours.index);
    return not_there(fmt::format("cuda:{}", neighbours.index),
                     fmt::format("{} processes of this node run on this machine, each on a device of its own, and {}",
                                 neighbours.count, here.text()));
  }
  std::size_t index = 0;
  const auto digits = asked.starts_with(kCuda) ? asked.substr(kCuda.size()) : std::string_view();
  const auto [end, problem] = std::from_chars(digits.data(), digits.data() + digits.size(), index);
  if (digits.empty() || problem != std::errc() || end != digits.data() + digits.size())
    return Result<at::Device>::failure(
        fmt::format("'{}' is no device: write \"auto\", \"cpu\" or \"cuda:N\" with N from 0", asked));
  if (index >= here.cuda) return not_there(asked, here.text());
  if (neighbours.count > 1)
    return not_there(asked, fmt::format("{} processes of this node run on this machine and would share it, and each "
                                        "needs its own",
                                        neighbours.count));
  return cuda(index);
}

at::Device require_device(std::string_view asked, const Neighbours& neighbours) {
  auto found = device_named(asked, devices_here(), neighbours);
  if (!found) throw Error(found.error());
  return found.value();
}

}  // namespace hansa
