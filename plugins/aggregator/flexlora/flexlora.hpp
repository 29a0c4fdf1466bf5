// Aggregator "flexlora": nodes of different ranks in one federation (arXiv 2402.11505). The weighted mean of the clients'
// products, each at its own rank and scale, is decomposed from its factors; every view gets the best factors of its rank.
// Fold thread. Throws Error where a group is no low-rank pair, or where no update was accepted.
#pragma once
#include <hansa/aggregator.hpp>

namespace hansa::factors {
struct Spectrum;
}

namespace hansa::flexlora {

class FlexLora final : public Stateless<Aggregator> {
 public:
  explicit FlexLora(Host& host) : host_(host) {}
  Exchange exchange(const Layout& trainable, const RoundPlan&, const NodeFacts&) const override;
  // For clients of the rank of this layout.
  std::uint64_t workspace(const Layout&, const Group&, std::size_t clients) const override;
  void reduce(const Updates&, Results&) override;

 private:
  void put_view(const factors::Spectrum&, const Updates&, const std::string& view, Results&) const;
  Host& host_;
};

}  // namespace hansa::flexlora
