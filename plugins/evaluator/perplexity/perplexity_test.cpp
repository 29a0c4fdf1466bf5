#include "perplexity.hpp"

#include <limits>

#include <ATen/ops/full.h>

#include <hansa/testing/bare_model.hpp>

#include "test.hpp"

using namespace hansa;
using Catch::Matchers::Contains;

namespace {

class Fixed : public testing::BareModel {
 public:
  at::Tensor loss(const Batch& batch) override {
    return at::full({}, nats_per_token * static_cast<double>(batch.counted), at::kFloat);
  }
  double nats_per_token = 2;
};
class Three : public Stateless<DataSource> {
 public:
  void open(const std::filesystem::path&, const Tokenizer*, std::int64_t) override {}
  std::uint64_t examples() const override { return 6; }
  void shuffle(std::uint64_t) override {}
  void rewind() override { given_ = 0; }
  std::optional<Batch> next(std::int64_t rows) override {
    if (given_ == 3) return std::nullopt;
    ++given_;
    return Batch{.bytes = 10, .counted = rows, .documents = 2};
  }

 private:
  int given_ = 2;
};

}  // namespace

TEST_CASE("perplexity sums nats, tokens, bytes and documents over one pass from the start") {
  testing::QuietHost host;
  Fixed model;
  Three data;
  const auto sums = perplexity::Perplexity({.batch = 5}, host).evaluate(model, data);
  CHECK(sums == Metrics{{"nats", 30}, {"tokens", 15}, {"bytes", 30}, {"documents", 6}});
}

TEST_CASE("an evaluation of a broken model or a cancelled one ends with a sentence") {
  testing::QuietHost host;
  Fixed model;
  Three data;
  model.nats_per_token = std::numeric_limits<double>::infinity();
  CHECK_THROWS_WITH(perplexity::Perplexity({}, host).evaluate(model, data), Contains("not finite"));
  host.cancel = true;
  CHECK_THROWS_WITH(perplexity::Perplexity({}, host).evaluate(model, data), Contains("cancelled"));
}
