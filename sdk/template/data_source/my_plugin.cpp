#include "my_plugin.hpp"

#include <algorithm>
#include <fstream>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>

#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <hansa/plugin.hpp>

namespace example {

void MyPlugin::open(const std::filesystem::path& silo, const hansa::Tokenizer* tokenizer, std::int64_t max_length) {
  if (!tokenizer) throw std::runtime_error("my_plugin needs the checkpoint's tokenizer.json, and there is none");
  if (silo != opened_ || max_length != opened_length_) {  // opening the same silo again is cheap
    std::ifstream file(silo);
    if (!file) throw std::runtime_error("cannot read " + silo.string());
    documents_.clear();
    const auto most = static_cast<std::size_t>(std::min(params_.length, max_length)) + 1;
    for (std::string line; std::getline(file, line);) {
      Document document{{}, static_cast<std::int64_t>(line.size())};
      if (const auto begin = tokenizer->begin_of_text()) document.tokens.push_back(*begin);
      for (auto token : tokenizer->encode(line)) document.tokens.push_back(token);
      if (document.tokens.size() > most) {
        document.tokens.resize(most);
        document.bytes = static_cast<std::int64_t>(tokenizer->decode(document.tokens).size());  // of what is left
      }
      if (document.tokens.size() >= 2) documents_.push_back(std::move(document));
    }
    if (documents_.empty()) throw std::runtime_error(silo.string() + " holds no line to learn from");
    opened_ = silo;
    opened_length_ = max_length;
  }
  rewind();
}

void MyPlugin::shuffle(std::uint64_t seed) {
  seed_ = seed;
  pass_ = 0;
  start_pass();
}
void MyPlugin::rewind() {
  seed_.reset();
  start_pass();
}

void MyPlugin::start_pass() {
  order_.resize(documents_.size());
  std::iota(order_.begin(), order_.end(), std::size_t{0});
  at_ = 0;
  if (!seed_) return;
  std::seed_seq mixed{static_cast<std::uint32_t>(*seed_), static_cast<std::uint32_t>(*seed_ >> 32),
                      static_cast<std::uint32_t>(pass_)};
  std::mt19937_64 engine(mixed);  // its numbers are the same everywhere; std::shuffle's use of them is not
  for (std::size_t left = order_.size(); left > 1; --left) std::swap(order_[left - 1], order_[engine() % left]);
}

std::optional<hansa::Batch> MyPlugin::next(std::int64_t rows) {
  std::vector<const Document*> chosen;
  std::size_t length = 0;
  while (static_cast<std::int64_t>(chosen.size()) < rows) {
    if (at_ == order_.size()) {
      if (!seed_) break;
      ++pass_;
      start_pass();
    }
    chosen.push_back(&documents_[order_[at_++]]);
    length = std::max(length, chosen.back()->tokens.size() - 1);
  }
  if (chosen.empty()) return std::nullopt;

  const std::vector<std::int64_t> shape{static_cast<std::int64_t>(chosen.size()), static_cast<std::int64_t>(length)};
  hansa::Batch batch;
  batch.tokens = at::zeros(shape, at::kLong);
  batch.labels = at::full(shape, -100, at::kLong);
  batch.segments = at::full(shape, -1, at::kLong);  // -1 is padding
  batch.positions = at::arange(shape[1], at::kLong).repeat({shape[0], 1});
  for (std::size_t row = 0; row < chosen.size(); ++row) {
    const auto& tokens = chosen[row]->tokens;
    const auto inputs = tokens.size() - 1, first = row * length;
    std::copy_n(tokens.begin(), inputs, batch.tokens.mutable_data_ptr<std::int64_t>() + first);
    std::copy_n(tokens.begin() + 1, inputs, batch.labels.mutable_data_ptr<std::int64_t>() + first);
    std::fill_n(batch.segments.mutable_data_ptr<std::int64_t>() + first, inputs, 0);
    batch.counted += static_cast<std::int64_t>(inputs);
    batch.bytes += chosen[row]->bytes;
    ++batch.documents;
  }
  return batch;
}

}  // namespace example

HANSA_PLUGIN(org_example_my_plugin, "0.1.0") {
  using namespace example;
  plugin.vendor("Example").license("Apache-2.0");
  plugin.add<MyPlugin, Params>("my_plugin", "A text file, each line a document and a row.")
      .doc("What it does, in paragraphs.")
      .maturity(hansa::Maturity::Experimental)
      .traits(HANSA_TRAIT_STATELESS)
      .param(&Params::length, "length", "Most tokens of a row; the rest of a line is left out.",
             hansa::range(1, 1 << 20), "tokens");
}
