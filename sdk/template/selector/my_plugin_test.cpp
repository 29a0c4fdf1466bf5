#include "my_plugin.hpp"

#include <algorithm>
#include <map>
#include <random>

#include <hansa/testing/plain_test.hpp>

using example::MyPlugin;
using hansa::testing::promise;

namespace {

struct Draw final : hansa::DrawRng {
  std::mt19937_64 engine{1};
  double uniform() override { return static_cast<double>(engine() >> 11) * 0x1.0p-53; }
};
std::vector<hansa::NodeFacts> nodes(std::size_t count) {
  std::vector<hansa::NodeFacts> all(count);
  for (std::size_t i = 0; i < count; ++i) all[i].node = 10 * i;
  return all;
}

void cohorts_have_their_size_and_order() {
  Draw draw;
  for (std::size_t population : {1, 2, 7, 100})
    for (double share : {0.0, 0.3, 1.0}) {
      MyPlugin selector({share});
      const auto all = nodes(population);
      const auto chosen = selector.choose(all, draw);
      promise(static_cast<double>(chosen.size()) == selector.expected_cohort(population), "not as many as expected");
      promise(std::is_sorted(chosen.begin(), chosen.end()), "another order");
    }
}
void everyone_is_equally_likely() {
  Draw draw;
  const auto all = nodes(10);
  std::map<hansa::NodeId, int> times;
  for (int i = 0; i < 10000; ++i)
    for (auto node : MyPlugin({0.3}).choose(all, draw)) ++times[node];
  for (const auto& [node, count] : times) promise(std::abs(count - 3000) < 6 * 46, "some are drawn more often");
}

}  // namespace

int main() {
  return hansa::testing::run_cases({{"cohorts have their size and order", cohorts_have_their_size_and_order},
                                    {"everyone is equally likely", everyone_is_equally_likely}});
}
