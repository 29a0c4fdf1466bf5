#include <c10/util/Exception.h>

#include "plugin_host/instance.hpp"

#include <typeinfo>

#include <fmt/ranges.h>
#include <hansa/value.hpp>

#include "plugin_host/table_check.hpp"

namespace hansa {
namespace {

std::string sentence(std::string_view label, const CallPlace& place, std::string_view message) {
  return fmt::format("{}: {}", sentence_of(fmt::format("{} failed", label), place), message);
}

struct Collected {
  std::vector<std::string> sentences;
  static void add(void* context, const char* param, const char* message, const char* hint) {
    auto text = *param ? fmt::format("parameter '{}' {}", param, message) : std::string(message);
    if (*hint) text += fmt::format(" ({})", hint);
    static_cast<Collected*>(context)->sentences.push_back(std::move(text));
  }
};

}  // namespace

PluginFailure::PluginFailure(std::string label, const CallPlace& place, std::string_view message)
    : Error(sentence(label, place, message)),
      label_(std::move(label)),
      reason_(message),
      tensor_(place.tensor),
      round_(place.round),
      node_(place.node) {}

std::string plain_message() {
  try {
    throw;
  } catch (const c10::Error& e) {
    return e.what_without_backtrace();
  } catch (const std::exception& e) {
    return e.what();
  } catch (...) {
    return "something that is not a std::exception was thrown";
  }
}

void rethrow_as_plugin_failure(const std::string& label, const CallPlace& place) {
  try {
    throw;
  } catch (const Error& e) {
    if (typeid(e) != typeid(Error)) throw;
    throw PluginFailure(label, place, e.what());
  } catch (...) {
    throw PluginFailure(label, place, plain_message());
  }
}

const HansaComponent& require(const StrategyRegistry& registry, std::string_view kind, std::string_view name) {
  const auto plain = kind.substr(0, kind.find('/'));
  if (const auto* component = registry.find(plain, name)) return *component;
  const auto remark = registry.remark(plain, name);
  throw Error(fmt::format("no {} is named '{}'{}{}; there are: {}", plain, name, remark.empty() ? "" : ": ", remark,
                          fmt::join(registry.names(plain), ", ")));
}

std::shared_ptr<void> create_untyped(const StrategyRegistry& registry, const HansaComponent& component,
                                     std::string_view interface, const HansaValue& params, std::shared_ptr<Host> host) {
  const auto label = registry.label_of(component);
  const CallPlace place{.doing = "its constructor"};
  const auto* adapter = interface == component.kind ? nullptr : registry.adapter(component.kind, interface);
  if (interface != component.kind && !adapter)
    throw PluginFailure(
        label, place,
        fmt::format("it is {}, but {} is wanted, and this host adapts no such component", component.kind, interface));

  const auto complete = with_defaults(component, params);
  Collected found;
  HansaProblems problems{sizeof(HansaProblems), &found, &Collected::add};
  if (component.validate(&component, &complete.raw(), &problems) != 0 || !found.sentences.empty())
    throw PluginFailure(label, {.doing = "the check of its parameters"},
                        fmt::format("{}", fmt::join(found.sentences, "; ")));

  const HansaHost handle{sizeof(HansaHost), host.get()};
  std::string why = "it returned nothing and gave no reason";
  HansaFault fault{sizeof(HansaFault), &why,
                   [](void* context, const char* message) { *static_cast<std::string*>(context) = message; }};
  auto* made = component.create(&component, &handle, &complete.raw(), &fault);
  if (!made) throw PluginFailure(label, place, why);
  std::shared_ptr<void> owned(
      made, [&component, host = std::move(host)](void* instance) { component.destroy(&component, instance); });
  return adapter ? adapter->wrap(std::move(owned)) : owned;
}

Value with_defaults(const HansaComponent& component, const HansaValue& given) {
  Value complete;
  for (std::uint32_t i = 0; i < component.param_count; ++i) {
    const auto& param = *component.params[i];
    if (const auto* held = find(given, param.name))
      complete.set(param.name, Value::copy(*held));
    else if (param.default_value)
      complete.set(param.name, Value::copy(*param.default_value));
    else if (param.flags & HANSA_PARAM_REQUIRED)
      throw Error(fmt::format("{} '{}' needs the parameter '{}'", kind_of(component), component.id, param.name));
  }
  for (std::uint32_t i = 0; i < given.count; ++i)
    if (!complete.find(given.keys[i]))
      throw Error(fmt::format("{} '{}' has no parameter '{}'", kind_of(component), component.id, given.keys[i]));
  return complete;
}

}  // namespace hansa
