// Evaluator `accuracy`: how often the likeliest class, or token, is the right one. Training thread only.
#pragma once
#include <hansa/evaluator.hpp>

namespace hansa::accuracy {

struct Params {
  std::int64_t batch = 16;
};

class Accuracy final : public Stateless<Evaluator> {
 public:
  Accuracy(Params params, Host& host) : params_(params), host_(host) {}
  Metrics evaluate(Model&, DataSource&) override;

 private:
  Params params_;
  Host& host_;
};

}  // namespace hansa::accuracy
