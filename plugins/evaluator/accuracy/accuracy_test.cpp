#include "accuracy.hpp"

#include <cmath>
#include <limits>

#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <hansa/testing/bare_model.hpp>

#include "test.hpp"

using namespace hansa;
using Catch::Matchers::Contains;

namespace {

// Logits that favour class (token 0 of the row) modulo 3, by `lead`.
class Opinions : public testing::BareModel {
 public:
  at::Tensor counted_logits(const Batch& batch) override {
    auto all = at::zeros({batch.labels.numel(), 3}, at::kFloat);
    const auto tokens = batch.task == Task::Classification ? batch.tokens.select(1, 0) : batch.tokens.reshape({-1});
    for (std::int64_t i = 0; i < all.size(0); ++i)
      all.select(0, i).select(0, tokens.select(0, i).item<std::int64_t>() % 3).fill_(lead);
    const auto flat = batch.labels.reshape({-1});
    return all.index_select(0, flat.ge(0).nonzero().squeeze(1));
  }
  double lead = 2;
};
class Rows : public Stateless<DataSource> {
 public:
  explicit Rows(std::vector<Batch> batches) : batches_(std::move(batches)) {}
  void open(const std::filesystem::path&, const Tokenizer*, std::int64_t) override {}
  std::uint64_t examples() const override { return 5; }
  void shuffle(std::uint64_t) override {}
  void rewind() override { at_ = 0; }
  std::optional<Batch> next(std::int64_t) override {
    return at_ < batches_.size() ? std::optional(batches_[at_++]) : std::nullopt;
  }

 private:
  std::vector<Batch> batches_;
  std::size_t at_ = 9;
};
const double kRight = std::log(std::exp(2.0) + 2) - 2, kWrong = kRight + 2;

}  // namespace

TEST_CASE("accuracy counts texts whose likeliest class is the right one, and their nats") {
  testing::QuietHost host;
  Opinions model;
  const Batch first{.tokens = at::tensor({0, 7, 1, 7, 5, 7}, at::kLong).view({3, 2}),
                    .labels = at::tensor({0, 2, 2}, at::kLong),
                    .bytes = 30,
                    .counted = 3,
                    .documents = 3,
                    .task = Task::Classification};
  auto second = first;  // one text is not counted
  second.labels = at::tensor({1, -100, 2}, at::kLong);
  second.counted = 2;
  Rows data({first, second});
  const auto sums = accuracy::Accuracy({}, host).evaluate(model, data);
  REQUIRE(sums.size() == 4);
  CHECK(sums[0] == std::pair<std::string, double>("correct", 3));
  CHECK(sums[1].first == "nats");
  CHECK(sums[1].second == Approx(3 * kRight + 2 * kWrong));
  CHECK(sums[2] == std::pair<std::string, double>("tokens", 5));
  CHECK(sums[3] == std::pair<std::string, double>("documents", 6));
}

TEST_CASE("accuracy of a language model is that of its next tokens") {
  testing::QuietHost host;
  Opinions model;
  Rows data({{.tokens = at::tensor({0, 1, 2, 3}, at::kLong).view({1, 4}),
              .labels = at::tensor({0, 1, 1, -100}, at::kLong).view({1, 4}),
              .counted = 3,
              .documents = 1}});
  const auto sums = accuracy::Accuracy({}, host).evaluate(model, data);
  CHECK(sums[0].second == 2);
  CHECK(sums[2].second == 3);
}

TEST_CASE("an accuracy of a broken model, of pairs, or cancelled ends with a sentence") {
  testing::QuietHost host;
  Opinions model;
  Batch one{.tokens = at::zeros({1, 2}, at::kLong),
            .labels = at::zeros({1}, at::kLong),
            .counted = 1,
            .documents = 1,
            .task = Task::Classification};
  Rows data({one});
  model.lead = std::numeric_limits<double>::quiet_NaN();
  CHECK_THROWS_WITH(accuracy::Accuracy({}, host).evaluate(model, data), Contains("not finite"));
  one.task = Task::Preference;
  Rows pairs({one});
  CHECK_THROWS_WITH(accuracy::Accuracy({}, host).evaluate(model, pairs), Contains("pairs"));
  host.cancel = true;
  CHECK_THROWS_WITH(accuracy::Accuracy({}, host).evaluate(model, data), Contains("cancelled"));
}
