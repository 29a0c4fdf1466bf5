#include <ATen/core/Tensor.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <map>

#include <hansa/testing/bare_model.hpp>

#include "base/error.hpp"
#include "generate.hpp"
#include "test.hpp"

using namespace hansa;

namespace {

// Ids are bytes; 0 ends a text.
class Bytes : public Tokenizer {
 public:
  std::vector<std::int64_t> encode(std::string_view text) const override { return {text.begin(), text.end()}; }
  std::string decode(const std::vector<std::int64_t>& ids) const override {
    std::string text;
    for (auto id : ids) text += static_cast<char>(id);
    if (!text.empty() && text.back() == '\xC3') text.replace(text.size() - 1, 1, "\xEF\xBF\xBD");
    return text;
  }
  std::int64_t size() const override { return 256; }
  std::optional<std::int64_t> begin_of_text() const override { return std::nullopt; }
  std::optional<std::int64_t> end_of_text() const override { return 0; }
};

// Logits of the next token are a function of the whole text so far.
class Scripted : public testing::BareModel {
 public:
  using Next = std::function<void(const std::vector<std::int64_t>& text, float* logits)>;
  explicit Scripted(Next next) : next_(std::move(next)) {}
  struct Text : Cache {
    std::int64_t length() const override { return static_cast<std::int64_t>(ids.size()); }
    std::vector<std::int64_t> ids;
  };
  std::int64_t max_length() const override { return 20; }
  std::unique_ptr<Cache> cache(std::int64_t, std::int64_t) const override { return std::make_unique<Text>(); }
  at::Tensor logits(const Batch& batch, Cache* cache) override {
    auto& text = static_cast<Text*>(cache)->ids;
    const auto count = batch.tokens.size(1);
    text.insert(text.end(), batch.tokens.data_ptr<std::int64_t>(), batch.tokens.data_ptr<std::int64_t>() + count);
    auto logits = at::full({1, count, 256}, -30, at::kFloat);
    next_(text, logits.data_ptr<float>() + (count - 1) * 256);
    return logits;
  }

 private:
  Next next_;
};

Scripted three_letters() {  // a 0.6, b 0.3, c 0.1
  return Scripted([](const auto&, float* logits) {
    logits['a'] = std::log(0.6f);
    logits['b'] = std::log(0.3f);
    logits['c'] = std::log(0.1f);
  });
}

}  // namespace

TEST_CASE("greedy generation continues the text, stops at the end token and at the model's length") {
  Scripted alphabet([](const auto& text, float* logits) { logits[text.back() == 'f' ? 0 : text.back() + 1] = 0; });
  CHECK(generate(alphabet, Bytes(), "ab", {.temperature = 0}).text == "cdef");
  CHECK(generate(alphabet, Bytes(), "ab", {.max_tokens = 2, .temperature = 0}).text == "cd");
  Scripted endless([](const auto&, float* logits) { logits['x'] = 0; });
  CHECK(generate(endless, Bytes(), "ab", {.temperature = 0}).text.size() == 17);
  CHECK_THROWS_AS(generate(endless, Bytes(), std::string(30, 'a'), {}), Error);
}

TEST_CASE("a seed fixes the text, and frequencies follow temperature and top-p") {
  auto model = three_letters();
  const auto text = [&](std::uint64_t seed) {
    return generate(model, Bytes(), "", {.max_tokens = 15, .seed = seed}).text;
  };
  CHECK(text(4) == text(4));
  CHECK(text(5) != text(4));
  auto counts = [&](double temperature, double top_p) {
    std::map<char, double> found;
    for (std::uint64_t seed = 0; seed < 300; ++seed) {
      const GenerateOptions options{.max_tokens = 10, .temperature = temperature, .top_p = top_p, .seed = seed};
      for (char c : generate(model, Bytes(), "", options).text) found[c] += 1.0 / 3000;
    }
    return found;
  };
  CHECK(counts(1, 1)['b'] == Approx(0.3).margin(0.04));
  auto nucleus = counts(1, 0.8);
  CHECK(nucleus['c'] == 0);
  CHECK(nucleus['b'] == Approx(1.0 / 3).margin(0.04));
  CHECK(counts(1, 0.5)['a'] == Approx(1));
  CHECK(counts(0.5, 1)['a'] == Approx(0.36 / 0.46).margin(0.04));
}

TEST_CASE("text is given out in whole characters") {
  const std::string umlaut = "\xC3\xBC";
  Scripted model([&](const auto& text, float* logits) {
    const auto made = text.size() - 2;  // after the end token and one letter
    logits[made < umlaut.size() ? static_cast<unsigned char>(umlaut[made]) : 0] = 0;
  });
  std::vector<std::string> pieces;
  const auto made =
      generate(model, Bytes(), "x", {.temperature = 0}, [&](std::string_view piece) { pieces.emplace_back(piece); });
  CHECK(made.text == umlaut);
  CHECK(made.ids == std::vector<std::int64_t>{0xC3, 0xBC});
  CHECK(made.prompt_tokens == 2);
  CHECK((made.first_seconds > 0 && made.seconds >= made.first_seconds));
  CHECK(pieces == std::vector<std::string>{umlaut});
}
