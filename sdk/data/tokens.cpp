#include "data/tokens.hpp"

namespace hansa::data {

namespace {

template <class T>
std::span<const T> as_span(const MappedFile& file) {
  return {reinterpret_cast<const T*>(file.bytes().data()), file.bytes().size() / sizeof(T)};
}

}  // namespace

Tokens::Tokens(std::vector<std::int32_t> ids, std::vector<Example> examples, Tally tally)
    : held_ids_(std::move(ids)),
      held_examples_(std::move(examples)),
      ids_(held_ids_),
      examples_(held_examples_),
      tally_(std::move(tally)) {}

Tokens::Tokens(MappedFile ids, MappedFile examples, Tally tally)
    : mapped_ids_(std::move(ids)),
      mapped_examples_(std::move(examples)),
      ids_(as_span<std::int32_t>(mapped_ids_)),
      examples_(as_span<Example>(mapped_examples_)),
      tally_(std::move(tally)) {}

void TokenSink::add(const Encoded& one) {
  Example example{.first = ids_,
                  .bytes = one.bytes,
                  .count = static_cast<std::uint32_t>(one.tokens.size()),
                  .counted = one.counted,
                  .label = one.label};
  for (std::size_t i = 1; i < one.tokens.size(); ++i)
    if (one.tokens[i] >= 0) ++example.learnt;
  if (one.tokens.empty() || (example.learnt == 0 && one.label < 0)) return;
  put(one.tokens, example);
  ids_ += one.tokens.size();
  ++examples_;
}

void MemorySink::put(std::span<const std::int32_t> ids, const Example& example) {
  ids_.insert(ids_.end(), ids.begin(), ids.end());
  examples_.push_back(example);
}

Tokens MemorySink::finish(Tally tally) {
  ids_.shrink_to_fit();
  examples_.shrink_to_fit();
  return {std::move(ids_), std::move(examples_), std::move(tally)};
}

}  // namespace hansa::data
