// Evaluator `perplexity`: sums of loss over a silo. Training thread only.
#pragma once
#include <hansa/evaluator.hpp>

namespace hansa::perplexity {

struct Params {
  std::int64_t batch = 16;
};

class Perplexity final : public Stateless<Evaluator> {
 public:
  Perplexity(Params params, Host& host) : params_(params), host_(host) {}
  Metrics evaluate(Model&, DataSource&) override;

 private:
  Params params_;
  Host& host_;
};

}  // namespace hansa::perplexity
