// For rules that wrap another rule (bucketing, norm filters): the inner rule sees a decorated view of the updates. Override
// what differs; everything else is passed through. Lives no longer than what it wraps.
#pragma once
#include <hansa/aggregator.hpp>

namespace hansa {

class Decorated : public Updates {
 public:
  explicit Decorated(const Updates& inner) : inner_(inner) {}
  const Group& group() const override { return inner_.group(); }
  std::span<const std::string> views() const override { return inner_.views(); }
  const TensorSpec& tensor(std::size_t member, std::string_view view = {}) const override {
    return inner_.tensor(member, view);
  }
  double scale(std::string_view view) const override { return inner_.scale(view); }
  std::size_t clients() const override { return inner_.clients(); }
  const Contribution& who(std::size_t client) const override { return inner_.who(client); }
  at::Tensor delta(std::size_t client, std::size_t member) const override { return inner_.delta(client, member); }
  at::Tensor value(std::size_t client, std::size_t member) const override { return inner_.value(client, member); }
  at::Tensor slice(std::size_t client, std::size_t member, std::int64_t first, std::int64_t count) const override {
    return inner_.slice(client, member, first, count);
  }

 protected:
  const Updates& inner_;
};

}  // namespace hansa
