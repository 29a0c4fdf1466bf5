// Where in a run a call into a plugin is made: what a message about it names beside the component. Built on the stack of the
// caller, who keeps what the views point at alive for the call.
#pragma once
#include <optional>
#include <string_view>

#include <hansa/types.hpp>

namespace hansa {

struct CallPlace {
  std::string_view doing{};  // "reduce"
  std::optional<Round> round{};
  std::optional<NodeId> node{};
  std::string_view tensor{};
};

}  // namespace hansa
