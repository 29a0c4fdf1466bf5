// Kind "evaluator": measures a model on held-out data. Node side, training thread.
#pragma once
#include <hansa/data_source.hpp>

namespace hansa {

class Evaluator : public Component {
 public:
  using InterfaceType = Evaluator;
  static constexpr std::string_view kKind = "evaluator/1";
  // Sums that can be added over silos ("nats", "tokens", "bytes", "documents"); the host forms the quotients.
  virtual Metrics evaluate(Model&, DataSource&) = 0;
};

}  // namespace hansa
