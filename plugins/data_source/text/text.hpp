// Data source `text`: plain text files as rows of tokens. Training thread only. Silos are tokenised once and kept.
#pragma once
#include <map>

#include <hansa/data_source.hpp>

#include "documents.hpp"
#include "rows.hpp"

namespace hansa::text {

enum class Mode : std::uint8_t { Pack, Pad };

struct Params {
  std::int64_t length = 128;
  Mode mode = Mode::Pack;
  std::string separator = "%";
  OnBad on_bad = OnBad::Error;
};

class Text final : public Stateless<DataSource> {
 public:
  Text(Params params, Host& host) : params_(std::move(params)), host_(host) {}
  void open(const std::filesystem::path& silo, const Tokenizer* tokenizer, std::int64_t max_length) override;
  std::uint64_t examples() const override;
  void shuffle(std::uint64_t seed) override;
  void rewind() override;
  std::optional<Batch> next(std::int64_t rows) override;

 private:
  struct Silo {
    Tokens tokens;
    std::vector<Piece> pieces;
    std::int64_t length = 0;
  };
  Silo read(const std::filesystem::path&, const Tokenizer&, std::int64_t length) const;
  const Silo& silo() const;  // throws before open
  bool next_pass();          // false: the pass in file order is over
  void set_order();

  Params params_;
  Host& host_;
  std::map<std::pair<std::string, const Tokenizer*>, Silo> silos_;
  const Silo* open_ = nullptr;
  std::optional<std::uint64_t> seed_;  // none: file order
  std::uint64_t pass_ = 0;
  std::vector<std::uint32_t> order_;
  std::size_t position_ = 0;
};

}  // namespace hansa::text
