// Text to ids and back. The host reads it from the checkpoint's directory and lends it to data sources. Immutable after
// construction: any thread.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace hansa {

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  virtual std::vector<std::int64_t> encode(
      std::string_view utf8) const = 0;  // without the post-processor's special tokens
  virtual std::string decode(const std::vector<std::int64_t>& ids) const = 0;  // special tokens are skipped
  virtual std::int64_t size() const = 0;                                       // one more than the largest id
  virtual std::optional<std::int64_t> begin_of_text() const = 0;
  virtual std::optional<std::int64_t> end_of_text() const = 0;
};

}  // namespace hansa
