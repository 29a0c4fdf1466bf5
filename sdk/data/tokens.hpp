// The tokens of a silo: one run of numbers and a table of examples, in memory or mapped from the token cache. Immutable once
// made; any thread may read.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/file.hpp"
#include "data/encode.hpp"

namespace hansa::data {

struct Example {              // as it lies in the cache
  std::uint64_t first = 0;    // in ids
  std::uint64_t bytes = 0;    // UTF-8 that its labels stand for
  std::uint32_t count = 0;    // tokens
  std::uint32_t counted = 0;  // labels that stand for bytes
  std::int32_t label = -1;    // its class
  std::uint32_t learnt = 0;   // labels in all
};
static_assert(sizeof(Example) == 32 && std::is_trivially_copyable_v<Example>);

struct Tally {  // of reading a silo
  std::uint64_t records = 0, skipped = 0;
  std::string first_skipped;  // file:line and the reason
};

class Tokens {
 public:
  Tokens(std::vector<std::int32_t> ids, std::vector<Example> examples, Tally tally);
  Tokens(MappedFile ids, MappedFile examples, Tally tally);
  Tokens(Tokens&&) = default;
  Tokens& operator=(Tokens&&) = default;

  std::span<const std::int32_t> ids() const { return ids_; }  // see kept() in encode.hpp
  std::span<const Example> examples() const { return examples_; }
  std::span<const std::int32_t> ids_of(const Example& one) const { return ids_.subspan(one.first, one.count); }
  const Tally& tally() const { return tally_; }

 private:
  std::vector<std::int32_t> held_ids_;
  std::vector<Example> held_examples_;
  MappedFile mapped_ids_, mapped_examples_;
  std::span<const std::int32_t> ids_;  // what they point at does not move with this
  std::span<const Example> examples_;
  Tally tally_;
};

class TokenSink {  // takes examples in order
 public:
  virtual ~TokenSink() = default;
  void add(const Encoded&);  // one without a token to foretell, and without a class, is left out
  std::uint64_t examples() const { return examples_; }

 protected:
  virtual void put(std::span<const std::int32_t> ids, const Example&) = 0;

 private:
  std::uint64_t ids_ = 0, examples_ = 0;
};

class MemorySink final : public TokenSink {
 public:
  Tokens finish(Tally);

 private:
  void put(std::span<const std::int32_t> ids, const Example&) override;
  std::vector<std::int32_t> ids_;
  std::vector<Example> examples_;
};

}  // namespace hansa::data
