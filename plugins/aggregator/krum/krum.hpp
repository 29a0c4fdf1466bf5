// Aggregator "krum" (arXiv 1703.02757): the clients whose updates lie closest to those of their neighbours, and the plain mean
// of these. The survey pass adds up the squared distance of every pair over all tensors, in double, a slice of every client
// at a time; the first reduce chooses. Distances live from begin() to finish(): nothing is kept across rounds.
#pragma once
#include <vector>

#include <hansa/aggregator.hpp>
#include <hansa/schema.hpp>

namespace hansa::krum {

struct Params {
  std::int64_t f = 1, m = 1;
  ByteSize workspace = MiB(16);
};
std::uint64_t traits(const Params&);

class Krum final : public Stateless<Aggregator> {
 public:
  Krum(Params params, Host& host) : params_(params), host_(host) {}
  std::uint64_t workspace(const Layout&, const Group&, std::size_t clients) const override;
  void begin(const RoundPlan&) override;
  bool surveys() const override { return true; }
  void survey(const Updates&) override;
  void reduce(const Updates&, Results&) override;
  Metrics finish(Results&) override;

 private:
  std::int64_t width(std::size_t clients) const;  // elements of a slice
  void require_enough(std::size_t clients) const;
  void add_distances(const std::vector<at::Tensor>& slices, std::int64_t count);
  std::vector<std::size_t> choose(const Updates&) const;  // ascending NodeId

  Params params_;
  Host& host_;
  std::size_t clients_ = 0;
  std::vector<double> distances_;    // squared, of the pairs (0, 1), (0, 2), … (1, 2), …
  std::vector<std::size_t> chosen_;  // empty until the first reduce
};

}  // namespace hansa::krum
