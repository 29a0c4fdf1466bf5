// Making components, and the one function through which every call from the host into a plugin goes.
//
//   Instance<Aggregator> rule = create<Aggregator>(registry, "fedavg", params, services);
//   guard(rule, {.doing = "reduce", .round = 3, .tensor = name}, [&](Aggregator& a) { a.reduce(updates, results); });
//
// A guard costs nothing until something is thrown. What is thrown in a plugin's call becomes a PluginFailure that names
// component, version, round, node and tensor. Unchanged pass the types that the host tells apart (DiskFull, OutOfStep) and a
// PluginFailure from further in, which names another component or a closer place.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <hansa/component.hpp>
#include <hansa/value.hpp>

#include "base/error.hpp"
#include "plugin_host/call_watch.hpp"
#include "plugin_host/default_host.hpp"
#include "plugin_host/registry.hpp"

namespace hansa {

class PluginFailure : public Error {
 public:
  PluginFailure(std::string label, const CallPlace&, std::string_view message);
  const std::string& component() const { return label_; }  // "aggregator fedavg 0.1.0"
  const std::string& reason() const { return reason_; }    // what the plugin said, alone
  std::optional<Round> round() const { return round_; }
  std::optional<NodeId> node() const { return node_; }
  const std::string& tensor() const { return tensor_; }

 private:
  std::string label_, reason_, tensor_;
  std::optional<Round> round_;
  std::optional<NodeId> node_;
};

// Of the exception in flight.
std::string plain_message();
[[noreturn]] void rethrow_as_plugin_failure(const std::string& label, const CallPlace&);

// Owns what an Instance points at.
class Destroyer {
 public:
  Destroyer() = default;
  Destroyer(std::shared_ptr<void> object, const HansaComponent& component, std::string label,
            CallWatch* watch = nullptr)
      : object_(std::move(object)),
        component_(&component),
        label_(std::make_unique<const std::string>(std::move(label))),
        watch_(watch) {}
  template <class Interface>
  void operator()(Interface*) {
    object_.reset();
  }
  const HansaComponent& component() const { return *component_; }
  const std::string& label() const { return *label_; }
  CallWatch* watch() const { return watch_; }

 private:
  std::shared_ptr<void> object_;
  const HansaComponent* component_ = nullptr;
  std::shared_ptr<const std::string> label_;
  CallWatch* watch_ = nullptr;
};
template <class Interface>
using Instance = std::unique_ptr<Interface, Destroyer>;

template <class Interface, class Call>
decltype(auto) guard(const Instance<Interface>& instance, const CallPlace& place, Call&& call) {
  const CallScope scope(instance.get_deleter().watch(), instance.get_deleter().label(), place);
  try {
    return std::forward<Call>(call)(*instance);
  } catch (...) {
    rethrow_as_plugin_failure(instance.get_deleter().label(), place);
  }
}

// Exactly `interface`'s pointer, never null: the component itself, or an adapter around one of another revision. Destroyed
// through the plugin; keeps the host that it is given. Throws PluginFailure when the constructor throws or a check of the
// parameters fails.
std::shared_ptr<void> create_untyped(const StrategyRegistry&, const HansaComponent&, std::string_view interface,
                                     const HansaValue& params, std::shared_ptr<Host>);

// With a host of the caller's, which outlives the instance.
template <class Interface>
Instance<Interface> create(const StrategyRegistry& registry, const HansaComponent& component, const HansaValue& params,
                           Host& host) {
  auto made = create_untyped(registry, component, Interface::kKind, params, {std::shared_ptr<void>(), &host});
  auto* object = static_cast<Interface*>(made.get());
  return {object, Destroyer(std::move(made), component, registry.label_of(component))};
}
// With a host of its own, made from the services.
template <class Interface>
Instance<Interface> create(const StrategyRegistry& registry, const HansaComponent& component, const HansaValue& params,
                           const HostServices& services) {
  auto host = std::make_shared<DefaultHost>(registry, component, services);
  auto made = create_untyped(registry, component, Interface::kKind, params, std::move(host));
  auto* object = static_cast<Interface*>(made.get());
  return {object, Destroyer(std::move(made), component, registry.label_of(component), services.watch)};
}
const HansaComponent& require(const StrategyRegistry&, std::string_view kind_with_revision,
                              std::string_view name);  // throws Error
template <class Interface, class HostOrServices>
Instance<Interface> create(const StrategyRegistry& registry, std::string_view name, const HansaValue& params,
                           HostOrServices&& host) {
  return create<Interface>(registry, require(registry, Interface::kKind, name), params, host);
}

// Every parameter with its default, for those that were not given. Throws Error when a required one is missing.
Value with_defaults(const HansaComponent&, const HansaValue& given);

}  // namespace hansa
