#include "generate.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>
#include <optional>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include "base/error.hpp"
#include "base/rng.hpp"

namespace hansa {

namespace {

at::Tensor row_of(const std::vector<std::int64_t>& ids) {
  auto row = at::empty({1, static_cast<std::int64_t>(ids.size())}, at::kLong);
  std::ranges::copy(ids, row.data_ptr<std::int64_t>());
  return row;
}

class Sampler {
 public:
  explicit Sampler(const GenerateOptions& options)
      : options_(options), random_(derive_seed(options.seed, "generate.sample")) {}

  std::int64_t choose(const float* logits, std::int64_t count) {
    const auto likeliest = std::max_element(logits, logits + count) - logits;
    if (options_.temperature <= 0) return likeliest;
    // In double, likeliest first: sums do not depend on the vocabulary's order, ties go to the lower id.
    order_.resize(static_cast<std::size_t>(count));
    std::iota(order_.begin(), order_.end(), 0);
    std::ranges::stable_sort(order_, [&](auto a, auto b) { return logits[a] > logits[b]; });
    weights_.clear();
    double total = 0;
    for (auto id : order_) {
      weights_.push_back(std::exp((static_cast<double>(logits[id]) - logits[likeliest]) / options_.temperature));
      total += weights_.back();
    }
    double kept = 0;
    std::size_t size = 0;
    while (size < weights_.size() && (size == 0 || kept < options_.top_p * total)) kept += weights_[size++];
    double left = random_.uniform() * kept;
    for (std::size_t i = 0; i < size; ++i)
      if ((left -= weights_[i]) < 0) return order_[i];
    return order_[size - 1];
  }

 private:
  GenerateOptions options_;
  SplitMix64 random_;
  std::vector<std::int64_t> order_;
  std::vector<double> weights_;
};

// Gives text out as soon as it can no longer change: a token may end inside a character.
class Stream {
 public:
  Stream(const Tokenizer& tokenizer, const std::function<void(std::string_view)>& on_text)
      : tokenizer_(tokenizer), on_text_(on_text) {}
  void add(std::int64_t id) {
    ids_.push_back(id);
    text_ = tokenizer_.decode(ids_);
    if (!text_.ends_with("\xEF\xBF\xBD")) give_out();  // U+FFFD: perhaps half a character
  }
  void finish(Generated& result) {
    give_out();
    result.text = std::move(text_);
    result.ids = std::move(ids_);
  }

 private:
  void give_out() {
    if (on_text_ && text_.size() > given_) on_text_(std::string_view(text_).substr(given_));
    given_ = std::max(given_, text_.size());
  }
  const Tokenizer& tokenizer_;
  const std::function<void(std::string_view)>& on_text_;
  std::vector<std::int64_t> ids_;
  std::string text_;
  std::size_t given_ = 0;
};

std::vector<std::int64_t> prompt_ids(const Model& model, const Tokenizer& tokenizer, std::string_view prompt) {
  auto ids = tokenizer.encode(prompt);
  const auto start = tokenizer.begin_of_text() ? tokenizer.begin_of_text() : tokenizer.end_of_text();
  if (start) ids.insert(ids.begin(), *start);
  if (ids.empty()) throw Error("an empty prompt needs a tokenizer with a start or an end token");
  if (static_cast<std::int64_t>(ids.size()) >= model.max_length())
    throw Error(fmt::format("the prompt has {} tokens; this model takes at most {} with what it generates", ids.size(),
                            model.max_length()));
  return ids;
}

}  // namespace

Generated generate(Model& model, const Tokenizer& tokenizer, std::string_view prompt, const GenerateOptions& options,
                   const std::function<void(std::string_view)>& on_text) {
  const auto start = std::chrono::steady_clock::now();
  const auto since = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(); };
  auto ids = prompt_ids(model, tokenizer, prompt);
  Generated result{.prompt_tokens = static_cast<std::int64_t>(ids.size())};
  const auto most = std::min(options.max_tokens, model.max_length() - result.prompt_tokens);
  const auto cache = model.cache(1, result.prompt_tokens + most);
  Sampler sampler(options);
  Stream stream(tokenizer, on_text);
  for (std::int64_t made = 0; made < most; ++made) {
    auto labels = std::vector<std::int64_t>(ids.size(), -100);
    labels.back() = 0;  // only what follows the last token is wanted
    const auto logits = model.logits({.tokens = row_of(ids), .labels = row_of(labels)}, cache.get());
    const auto last = logits[0][logits.size(1) - 1].to(at::kCPU).contiguous();
    const auto next = sampler.choose(last.data_ptr<float>(), last.numel());
    if (made == 0) result.first_seconds = since();
    if (next == tokenizer.end_of_text()) break;
    stream.add(next);
    ids = {next};
  }
  stream.finish(result);
  result.seconds = since();
  return result;
}

}  // namespace hansa
