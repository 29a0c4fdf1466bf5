// An Instance<> over an object of the test's own, so that host code can be tested with components that no file holds.
#pragma once
#include <memory>
#include <string>
#include <utility>

#include "plugin_host/instance.hpp"

namespace hansa {

template <class Interface>
Instance<Interface> owned(std::unique_ptr<Interface> object, std::string label = "test component") {
  static const HansaComponent component = [] {
    HansaComponent made{};
    made.struct_size = sizeof made;
    made.destroy = [](const HansaComponent*, void* instance) { delete static_cast<Interface*>(instance); };
    return made;
  }();
  return {object.release(), Destroyer(component, std::move(label), nullptr)};
}

}  // namespace hansa
