// Test plugin: the median of every coordinate. Not additive and without a stated sensitivity, so central noise on it protects
// nobody (rule 16). Looks at the clients side by side, a slice at a time.
#include <algorithm>
#include <vector>

#include <ATen/ops/empty.h>
#include <hansa/aggregator.hpp>
#include <hansa/plugin.hpp>

namespace hansa {
namespace {

constexpr std::int64_t kSlice = 4096;

class CoordinateMedian final : public Stateless<Aggregator> {
 public:
  std::uint64_t workspace(const Layout&, const Group&, std::size_t clients) const override {
    return (clients + 1) * kSlice * sizeof(float);
  }

  void reduce(const Updates& updates, Results& results) override {
    for (std::size_t member = 0; member < updates.group().members.size(); ++member) {
      const auto elements = updates.tensor(member).elements();
      for (std::int64_t first = 0; first < elements; first += kSlice)
        results.put_slice(member, first, median(updates, member, first, std::min(kSlice, elements - first)));
    }
  }

 private:
  static at::Tensor median(const Updates& updates, std::size_t member, std::int64_t first, std::int64_t count) {
    std::vector<at::Tensor> slices;
    for (std::size_t client = 0; client < updates.clients(); ++client)
      slices.push_back(updates.slice(client, member, first, count));
    auto result = at::empty({count}, at::TensorOptions().dtype(at::kFloat));
    std::vector<float> column(slices.size());
    for (std::int64_t i = 0; i < count; ++i) {
      for (std::size_t c = 0; c < slices.size(); ++c) column[c] = slices[c].const_data_ptr<float>()[i];
      const auto middle = column.begin() + static_cast<std::ptrdiff_t>(column.size() / 2);
      std::nth_element(column.begin(), middle, column.end());
      result.mutable_data_ptr<float>()[i] = column.empty() ? 0.0f : *middle;
    }
    return result;
  }
};

}  // namespace
}  // namespace hansa

HANSA_PLUGIN(org_hansa_test_coordinate_median, "0.1.0") {
  plugin.vendor("Hansa").license("Apache-2.0");
  plugin.add<hansa::CoordinateMedian>("coordinate_median", "The (upper) median of every coordinate; for tests.")
      .traits(HANSA_TRAIT_ORDER_FREE | HANSA_TRAIT_NEEDS_INDIVIDUALS | HANSA_TRAIT_STATELESS);
}
