// How authors describe a plugin. One macro defines the file's only exported function; inside it `plugin` is filled:
//
//   HANSA_PLUGIN(org_hansa_fedavg, "0.1.0") {
//     plugin.vendor("Hansa").license("Apache-2.0");
//     plugin.add<FedAvg, Params>("fedavg", "Weighted mean of client deltas.")
//         .doc("arXiv 1602.05629").maturity(Maturity::Beta)
//         .traits(HANSA_TRAIT_ADDITIVE | HANSA_TRAIT_ORDER_FREE)     // or a function of const Params&
//         .param(&Params::floor, "floor", "Smallest share of one client.", range(0, 1), "fraction")
//         .check([](const Params& p, Problems& problems) { … problems.add("floor", "what is wrong", "how to mend it"); });
//   }
//
// The component's class has one of the constructors T(Params, Host&), T(Params), T(Host&), T(). Its kind and interface
// come from the interface that it derives from. Parameters: see schema.hpp. Tables are built at the host's one call of the
// entry and live as long as the process; nothing is registered when the library is loaded. What a constructor, check or
// trait function throws reaches the host as text. A wrong declaration throws out of the entry: the host refuses the file
// and shows the sentence.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <hansa/plugin.h>
#include <hansa/component.hpp>
#include <hansa/schema.hpp>

namespace hansa {

enum class Maturity : std::uint32_t { Experimental = HANSA_EXPERIMENTAL, Beta = HANSA_BETA, Stable = HANSA_STABLE };

class Problems {  // what a check finds; `param` is "" for the component as a whole
 public:
  explicit Problems(HansaProblems& out) : out_(out) {}
  void add(const std::string& param, const std::string& message, const std::string& hint = {}) {
    out_.add(out_.context, param.c_str(), message.c_str(), hint.c_str());
  }

 private:
  HansaProblems& out_;
};

struct NoParams {};

namespace plugin_detail {

// The sentence of the exception in flight; c10's backtraces are for debuggers.
inline std::string current_message() {
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

struct ComponentRecord : HansaComponent {
  ComponentRecord(std::string kind_text, std::string id_text, std::string summary_text)
      : HansaComponent{}, kind_(std::move(kind_text)), id_(std::move(id_text)), summary_(std::move(summary_text)) {}
  virtual ~ComponentRecord() = default;
  void finish(std::span<const HansaParam* const> table) {
    struct_size = sizeof(HansaComponent);
    kind = kind_.c_str();
    id = id_.c_str();
    summary = summary_.c_str();
    doc = doc_.c_str();
    params = table.data();
    param_count = static_cast<std::uint32_t>(table.size());
  }
  virtual void finish() = 0;
  std::string kind_, id_, summary_, doc_, groups_;
};

template <class T, class P, class Interface>
struct TypedComponent final : ComponentRecord {
  using ComponentRecord::ComponentRecord;
  static const TypedComponent& of(const HansaComponent* self) { return *static_cast<const TypedComponent*>(self); }

  void finish() override {
    ComponentRecord::finish(schema.params());
    HansaComponent::validate = [](const HansaComponent* self, const HansaValue* values,
                                  HansaProblems* out) -> std::uint32_t {
      Problems problems(*out);
      try {
        const P held = of(self).schema.read(*values);
        for (const auto& check : of(self).checks) check(held, problems);
        return 0;
      } catch (...) {
        out->add(out->context, "", current_message().c_str(), "");
        return 1;
      }
    };
    HansaComponent::traits = [](const HansaComponent* self, const HansaValue* values,
                                HansaTraits* out) -> std::uint32_t {
      const auto& me = of(self);
      try {
        out->flags = me.flags ? me.flags(me.schema.read(*values)) : 0;
        out->groups = me.groups_.c_str();
        return 0;
      } catch (...) {
        return 1;
      }
    };
    HansaComponent::create = [](const HansaComponent* self, const HansaHost* host, const HansaValue* values,
                                HansaFault* fault) -> void* {
      try {
        return static_cast<Interface*>(make(of(self).schema.read(*values), *static_cast<Host*>(host->host)));
      } catch (...) {
        fault->set(fault->context, current_message().c_str());
        return nullptr;
      }
    };
    HansaComponent::destroy = [](const HansaComponent*, void* instance) { delete static_cast<Interface*>(instance); };
  }
  static T* make(P params, Host& host) {
    if constexpr (std::is_constructible_v<T, P, Host&>)
      return new T(std::move(params), host);
    else if constexpr (std::is_constructible_v<T, P>)
      return new T(std::move(params));
    else if constexpr (std::is_constructible_v<T, Host&>)
      return new T(host);
    else
      return new T();
  }

  Schema<P> schema;
  std::function<std::uint64_t(const P&)> flags;
  std::vector<std::function<void(const P&, Problems&)>> checks;
};

}  // namespace plugin_detail

template <class T, class P, class Interface>
class ComponentBuilder {
 public:
  explicit ComponentBuilder(plugin_detail::TypedComponent<T, P, Interface>& record) : record_(record) {}
  ComponentBuilder& doc(std::string text) {
    record_.doc_ = std::move(text);
    return *this;
  }
  ComponentBuilder& maturity(Maturity value) {
    record_.HansaComponent::maturity = static_cast<std::uint32_t>(value);
    return *this;
  }
  ComponentBuilder& traits(std::uint64_t flags) {
    record_.flags = [flags](const P&) { return flags; };
    return *this;
  }
  ComponentBuilder& traits(std::function<std::uint64_t(const P&)> flags) {
    record_.flags = std::move(flags);
    return *this;
  }
  ComponentBuilder& groups(std::string kinds) {  // kinds of layout groups understood as one: "lora"
    record_.groups_ = std::move(kinds);
    return *this;
  }
  template <class M, class... F>
  ComponentBuilder& param(M P::*member, std::string name, std::string text, F&&... facets) {
    record_.schema.param(member, std::move(name), std::move(text), std::forward<F>(facets)...);
    return *this;
  }
  ComponentBuilder& check(
      std::function<void(const P&, Problems&)> test) {  // across parameters; ranges are checked already
    record_.checks.push_back(std::move(test));
    return *this;
  }

 private:
  plugin_detail::TypedComponent<T, P, Interface>& record_;
};

class PluginBuilder {
 public:
  PluginBuilder& vendor(std::string text) { return set(vendor_, std::move(text)); }
  PluginBuilder& license(std::string text) { return set(license_, std::move(text)); }
  PluginBuilder& url(std::string text) { return set(url_, std::move(text)); }

  template <class T, class P = NoParams, class Interface = typename T::InterfaceType>
  ComponentBuilder<T, P, Interface> add(std::string id, std::string summary) {
    static_assert(std::is_base_of_v<Component, Interface> && std::is_base_of_v<Interface, T>);
    static_assert(!std::is_abstract_v<T>, "a method of the interface is missing or differs: compare with its header");
    static_assert(std::is_default_constructible_v<P>, "defaults come from the parameter struct's member initialisers");
    static_assert(std::is_constructible_v<T, P, Host&> || std::is_constructible_v<T, P> ||
                      std::is_constructible_v<T, Host&> || std::is_default_constructible_v<T>,
                  "the component needs one of the constructors T(Params, Host&), T(Params), T(Host&), T()");
    auto record = std::make_unique<plugin_detail::TypedComponent<T, P, Interface>>(std::string(Interface::kKind),
                                                                                   std::move(id), std::move(summary));
    auto& kept = *record;
    records_.push_back(std::move(record));
    return ComponentBuilder<T, P, Interface>(kept);
  }

  // Called once by the entry; the tables are never freed, because the host keeps pointers into them.
  static const HansaPlugin* build(const char* id, const char* version, void (*describe)(PluginBuilder&)) {
    auto made = std::make_unique<PluginBuilder>();
    describe(*made);
    return made.release()->finish(id, version);
  }

 private:
  PluginBuilder& set(std::string& where, std::string text) {
    where = std::move(text);
    return *this;
  }
  const HansaPlugin* finish(const char* id, const char* version) {
    for (const auto& record : records_) {
      record->finish();
      pointers_.push_back(record.get());
    }
    table_ = {sizeof(HansaPlugin),
              HANSA_ABI_MAJOR,
              HANSA_ABI_MINOR,
              id,
              version,
              vendor_.c_str(),
              license_.c_str(),
              url_.c_str(),
              pointers_.data(),
              static_cast<std::uint32_t>(pointers_.size())};
    return &table_;
  }
  std::string vendor_, license_, url_;
  std::vector<std::unique_ptr<plugin_detail::ComponentRecord>> records_;
  std::vector<const HansaComponent*> pointers_;
  HansaPlugin table_{};
};

}  // namespace hansa

#define HANSA_PLUGIN(id, version)                                                                                \
  static void hansa_describe_plugin(::hansa::PluginBuilder& plugin);                                             \
  extern "C" __attribute__((visibility("default"))) const HansaPlugin* hansa_plugin_entry(void);                 \
  extern "C" __attribute__((visibility("default"))) const HansaPlugin* hansa_plugin_entry(void) {                \
    static const HansaPlugin* const table = ::hansa::PluginBuilder::build(#id, version, &hansa_describe_plugin); \
    return table;                                                                                                \
  }                                                                                                              \
  static void hansa_describe_plugin(::hansa::PluginBuilder& plugin)
