#include <ATen/Parallel.h>

#include "plugin_host/default_host.hpp"

#include <fmt/format.h>

#include "base/rng.hpp"
#include "plugin_host/instance.hpp"
#include "plugin_host/table_check.hpp"

namespace hansa {

DefaultHost::DefaultHost(const StrategyRegistry& registry, const HansaComponent& component, HostServices services)
    : registry_(registry),
      component_(component),
      services_(std::move(services)),
      label_(registry.label_of(component)) {}

void DefaultHost::log(Level level, std::string_view message) {
  if (!services_.log) return;
  static constexpr LogLevel kLevels[] = {LogLevel::Debug, LogLevel::Info, LogLevel::Warning, LogLevel::Error};
  const auto index = static_cast<std::size_t>(level);
  services_.log->write(index < 4 ? kLevels[index] : LogLevel::Info, fmt::format("{}: {}", label_, message));
}

void DefaultHost::progress(std::uint64_t done, std::uint64_t total) {
  if (services_.watch) services_.watch->progressed();
  if (services_.progress) services_.progress(label_, done, total);
}

bool DefaultHost::cancelled() const {
  return (services_.cancelled && services_.cancelled->load(std::memory_order_relaxed)) ||
         (services_.watch && services_.watch->late(label_));
}

void DefaultHost::parallel_for(std::size_t n, const std::function<void(std::size_t)>& body) {
  at::parallel_for(0, static_cast<std::int64_t>(n), 1, [&](std::int64_t first, std::int64_t end) {
    for (auto i = first; i < end; ++i) body(static_cast<std::size_t>(i));
  });
}

// Kind and id, not the version: a newer plugin of the same name continues the same randomness.
std::uint64_t DefaultHost::seed(std::string_view purpose) const {
  return derive_seed(services_.run_seed, fmt::format("{}/{}/{}", kind_of(component_), component_.id, purpose));
}

std::shared_ptr<void> DefaultHost::create_inner(std::string_view kind, const HansaValue& choice) {
  const auto& component = require(registry_, kind, text_of(choice));
  auto host = std::make_shared<DefaultHost>(registry_, component, services_);
  return create_untyped(registry_, component, kind, choice, std::move(host));
}

}  // namespace hansa
