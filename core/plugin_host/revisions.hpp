// How one host serves several revisions of an interface. Host code is written against one of them, the newest; a component
// of another is made by its plugin and wrapped by an adapter, so that nobody else knows. Whoever builds the registry gives it
// the adapters; each also vouches for the hash that the build note of such a file must name. Immutable; any thread.
//
//   class Wrapped final : public Aggregator {           // what the host asks for
//    public:
//     explicit Wrapped(std::shared_ptr<v1::Aggregator> inner);   // what the plugin has; frozen, under a name of its own
//     …
//   };
//   StrategyRegistry registry(host_note(), {adapter<v1::Aggregator, Aggregator, Wrapped>("4c9a0e3b5d1f2a67")});
//
// Adapters are not chained: each leads from what a file offers to what somebody asks for. A component of the old revision
// that holds inner components asks for the old revision itself, and so needs an adapter the other way round.
#pragma once
#include <memory>
#include <string>
#include <utility>

namespace hansa {

struct RevisionAdapter {
  std::string from, to;  // "aggregator/1", "aggregator/2"
  std::string hash;      // of the header of `from`, as its build notes have it; frozen with it
  // From exactly `from`'s interface pointer to exactly `to`'s. The result keeps the inner one, and destroys it last.
  std::shared_ptr<void> (*wrap)(std::shared_ptr<void> inner) = nullptr;
};

template <class From, class To, class Wrapper>
RevisionAdapter adapter(std::string hash) {
  return {std::string(From::kKind), std::string(To::kKind), std::move(hash),
          [](std::shared_ptr<void> inner) -> std::shared_ptr<void> {
            return std::shared_ptr<To>(std::make_shared<Wrapper>(std::static_pointer_cast<From>(std::move(inner))));
          }};
}

}  // namespace hansa
