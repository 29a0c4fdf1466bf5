#include "conformance/subject.hpp"

#include <stdexcept>

namespace hansa::conformance {
namespace {

HansaTraits asked(const HansaComponent& component, const Value& values) {
  HansaTraits traits{sizeof(HansaTraits), 0, ""};
  if (component.traits && component.traits(&component, &values.raw(), &traits) != 0)
    throw std::runtime_error("its traits cannot be worked out for these parameters");
  return traits;
}

}  // namespace

std::string_view Subject::kind() const {
  const std::string_view whole = component.kind;
  return whole.substr(0, whole.find('/'));
}

std::uint64_t Subject::traits_of(const Value& values) const { return asked(component, values).flags; }

std::string Subject::groups() const {
  const auto* groups = asked(component, params).groups;
  return groups ? groups : "";
}

}  // namespace hansa::conformance
