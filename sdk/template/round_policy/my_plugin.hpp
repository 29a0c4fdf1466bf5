// Round policy "my_plugin": closes a round as soon as enough updates were accepted; aborts it when that cannot happen any more.
// Replace the decision; keep to the rules of hansa/selection.hpp.
#pragma once
#include <limits>

#include <hansa/selection.hpp>

namespace example {

struct Params {  // the initialisers are the defaults
  double share = 0.8;
};

class MyPlugin final : public hansa::Stateless<hansa::RoundPolicy> {
 public:
  explicit MyPlugin(Params params) : params_(params) {}
  hansa::Next decide(const hansa::RoundStatus&) override;
  // Asked again on events only: nothing here hangs on time.
  double deadline_seconds() const override { return std::numeric_limits<double>::infinity(); }

 private:
  Params params_;
};

}  // namespace example
