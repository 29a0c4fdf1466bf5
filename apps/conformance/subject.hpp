// The component that is looked at, and what it is looked at with. One thread.
#pragma once
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <string_view>

#include <hansa/value.hpp>

#include "plugin_host/instance.hpp"
#include "plugin_host/registry.hpp"

namespace hansa::conformance {

struct Subject {
  const StrategyRegistry& registry;
  const HansaComponent& component;
  Value params;                             // complete: defaults filled in
  std::uint64_t seed = 1;                   // of all cases
  std::map<std::string, std::string> with;  // partners by kind, as the user named them: {"adapter", "lora"}
  std::filesystem::path checkpoint;         // the user's; empty: one made on the spot
  std::filesystem::path scratch;            // an empty folder that goes away afterwards
  // Told what is tried next: a process that dies leaves its last input behind.
  std::function<void(std::uint64_t seed, const std::string& input)> trying = [](std::uint64_t, const std::string&) {};

  std::string_view kind() const;  // without the revision
  std::uint64_t traits() const { return traits_of(params); }
  std::uint64_t traits_of(const Value& values) const;
  std::string groups() const;  // kinds of layout groups it understands as one
  bool declares(std::uint64_t trait) const { return (traits() & trait) == trait; }

  // A fresh instance. run_seed is what the host's seeds come from.
  template <class Interface>
  Instance<Interface> make(std::uint64_t run_seed = 1) const {
    return make_with<Interface>(params, run_seed);
  }
  template <class Interface>
  Instance<Interface> make_with(const Value& values, std::uint64_t run_seed = 1) const {
    return create<Interface>(registry, component, values, HostServices{.run_seed = run_seed});
  }
};

}  // namespace hansa::conformance
