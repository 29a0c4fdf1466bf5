#include "my_plugin.hpp"

#include <ATen/ops/full.h>
#include <ATen/ops/one_hot.h>
#include <ATen/ops/zeros.h>
#include <hansa/testing/bare_model.hpp>
#include <hansa/testing/plain_test.hpp>

using example::MyPlugin;
using hansa::Batch;
using hansa::testing::promise;

namespace {

struct SaysTheSameAgain final : hansa::testing::BareModel {  // expects every token to be followed by itself
  at::Tensor loss(const Batch& batch) override { return at::full({}, 2.0 * static_cast<double>(batch.counted)); }
  at::Tensor logits(const Batch& batch, hansa::Cache*) override { return at::one_hot(batch.tokens, 5).to(at::kFloat); }
};
struct TwoBatches final : hansa::Stateless<hansa::DataSource> {
  int left = 2;
  void open(const std::filesystem::path&, const hansa::Tokenizer*, std::int64_t) override {}
  std::uint64_t examples() const override { return 2; }
  void shuffle(std::uint64_t) override {}
  void rewind() override { left = 2; }
  std::optional<Batch> next(std::int64_t) override {
    if (left-- == 0) return std::nullopt;
    Batch batch;
    batch.tokens = at::full({1, 4}, 3, at::kLong);
    batch.labels = at::full({1, 4}, 3, at::kLong);
    batch.labels.select(1, 0).fill_(1);     // one is wrong
    batch.labels.select(1, 3).fill_(-100);  // one is not counted
    batch.counted = 3;
    batch.bytes = 12;
    batch.documents = 1;
    return batch;
  }
};

void the_sums_are_as_by_hand() {
  hansa::testing::QuietHost host;
  SaysTheSameAgain model;
  TwoBatches data;
  const hansa::Metrics want{{"nats", 12}, {"tokens", 6}, {"bytes", 24}, {"documents", 2}, {"correct", 4}};
  promise(MyPlugin({}, host).evaluate(model, data) == want, "other sums");
  host.cancel = true;
  hansa::testing::promise_throws([&] { MyPlugin({}, host).evaluate(model, data); }, "a cancelled evaluation went on");
}

}  // namespace

int main() { return hansa::testing::run_cases({{"the sums are as by hand", the_sums_are_as_by_hand}}); }
