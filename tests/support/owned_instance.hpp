// An Instance<> over an object of the test's own, so that host code can be tested with components that no file holds.
#pragma once
#include <memory>
#include <string>
#include <utility>

#include "plugin_host/instance.hpp"

namespace hansa {

template <class Interface>
Instance<Interface> owned(std::unique_ptr<Interface> object, std::string label = "test component") {
  static const HansaComponent nobodys = [] {
    HansaComponent component{};
    component.id = "test";
    return component;
  }();
  std::shared_ptr<Interface> kept = std::move(object);
  auto* plain = kept.get();
  return {plain, Destroyer(std::move(kept), nobodys, std::move(label))};
}

}  // namespace hansa
