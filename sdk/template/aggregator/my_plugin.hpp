// Aggregator "my_plugin": the weighted mean of the clients' changes, tensor by tensor, without clients of little weight.
// Replace the mathematics; keep to the rules of hansa/aggregator.hpp.
#pragma once
#include <hansa/aggregator.hpp>

namespace example {

struct Params {  // the initialisers are the defaults
  double min_weight = 0;
};

class MyPlugin final : public hansa::Stateless<hansa::Aggregator> {
 public:
  explicit MyPlugin(Params params) : params_(params) {}
  std::uint64_t workspace(const hansa::Layout&, const hansa::Group&, std::size_t clients) const override;
  void reduce(const hansa::Updates&, hansa::Results&) override;

 private:
  Params params_;
};

}  // namespace example
