// Kind "data_source": a silo's text as batches. Node side, training thread.
#pragma once
#include <filesystem>
#include <optional>

#include <hansa/model.hpp>
#include <hansa/tokenizer.hpp>

namespace hansa {

class DataSource : public Component {
 public:
  using InterfaceType = DataSource;
  static constexpr std::string_view kKind = "data_source/1";
  // Reads a silo (a file or directory). Throws on unreadable or empty data, naming file and line. `tokenizer` outlives it;
  // null when the checkpoint has none. Opening the same silo again is cheap. `max_length`: longest row, in tokens.
  virtual void open(const std::filesystem::path& silo, const Tokenizer* tokenizer, std::int64_t max_length) = 0;
  virtual std::uint64_t examples() const = 0;  // documents
  // Starts a pass. Shuffled with the seed; the order is a pure function of (silo, seed). next() never ends a shuffled
  // pass: it goes on with another order.
  virtual void shuffle(std::uint64_t seed) = 0;
  // Starts a pass in file order that ends after every document was given once: evaluation.
  virtual void rewind() = 0;
  virtual std::optional<Batch> next(std::int64_t rows) = 0;
};

}  // namespace hansa
