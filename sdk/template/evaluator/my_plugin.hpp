// Evaluator "my_plugin": the loss, and how often the likeliest token was the right one. Sums only: the host adds them over silos
// and forms the quotients. Replace the measure; keep to the rules of hansa/evaluator.hpp.
#pragma once
#include <hansa/evaluator.hpp>

namespace example {

struct Params {  // the initialisers are the defaults
  std::int64_t batch = 8;
};

class MyPlugin final : public hansa::Stateless<hansa::Evaluator> {
 public:
  MyPlugin(Params params, hansa::Host& host) : params_(params), host_(host) {}
  hansa::Metrics evaluate(hansa::Model&, hansa::DataSource&) override;

 private:
  Params params_;
  hansa::Host& host_;
};

}  // namespace example
