// What a component may ask of the program that runs it: log, progress, cancellation, threads, seeds, inner components.
// One per component; any thread.
#pragma once
#include <atomic>
#include <functional>
#include <string>

#include <hansa/component.hpp>

#include "base/log.hpp"
#include "plugin_host/call_watch.hpp"
#include "plugin_host/registry.hpp"

namespace hansa {

struct HostServices {        // what all components of a process share; everything pointed at outlives them
  const Log* log = nullptr;  // null: silent
  const std::atomic<bool>* cancelled = nullptr;  // null: never
  std::uint64_t run_seed = 0;
  std::function<void(std::string_view component, std::uint64_t done, std::uint64_t total)> progress{};
  CallWatch* watch = nullptr;  // null: calls take as long as they take
};

class DefaultHost final : public Host {
 public:
  DefaultHost(const StrategyRegistry&, const HansaComponent&, HostServices);
  void log(Level, std::string_view message) override;
  void progress(std::uint64_t done, std::uint64_t total) override;
  bool cancelled() const override;
  // On LibTorch's threads, so that their number is the run's; the first exception of a body is rethrown.
  void parallel_for(std::size_t n, const std::function<void(std::size_t)>& body) override;
  std::uint64_t seed(std::string_view purpose) const override;

 protected:
  std::shared_ptr<void> create_inner(std::string_view kind, const HansaValue& choice) override;

 private:
  const StrategyRegistry& registry_;
  const HansaComponent& component_;
  HostServices services_;
  std::string label_;
};

}  // namespace hansa
