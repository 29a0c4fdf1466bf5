// Aggregator "median": the median of every coordinate over the clients, weights ignored (arXiv 1803.01498). Looks at all
// clients side by side, a slice of the tensor at a time, so that memory follows from the parameter and not from the model.
// No branch depends on the values and no sum on an order: the result is a function of the set of updates, bit for bit.
#pragma once
#include <hansa/aggregator.hpp>
#include <hansa/schema.hpp>

namespace hansa::median {

struct Params {
  ByteSize workspace = MiB(16);
};

class Median final : public Stateless<Aggregator> {
 public:
  Median(Params params, Host& host) : params_(params), host_(host) {}
  std::uint64_t workspace(const Layout&, const Group&, std::size_t clients) const override;
  void reduce(const Updates&, Results&) override;

 private:
  std::int64_t width(std::size_t clients) const;  // elements of a slice

  Params params_;
  Host& host_;
};

}  // namespace hansa::median
