// Data source "my_plugin": a text file in which every line is a document, a row each. Replace the reading; keep to the rules of
// hansa/data_source.hpp: the order is a function of silo and seed, a shuffled pass never ends, one in file order does.
#pragma once
#include <vector>

#include <hansa/data_source.hpp>

namespace example {

struct Params {  // the initialisers are the defaults
  std::int64_t length = 256;
};

class MyPlugin final : public hansa::Stateless<hansa::DataSource> {
 public:
  explicit MyPlugin(Params params) : params_(params) {}
  void open(const std::filesystem::path& silo, const hansa::Tokenizer* tokenizer, std::int64_t max_length) override;
  std::uint64_t examples() const override { return documents_.size(); }
  void shuffle(std::uint64_t seed) override;
  void rewind() override;
  std::optional<hansa::Batch> next(std::int64_t rows) override;

 private:
  struct Document {
    std::vector<std::int64_t> tokens;  // at least two: each but the first is the label of the one before
    std::int64_t bytes = 0;            // UTF-8
  };
  void start_pass();

  Params params_;
  std::filesystem::path opened_;
  std::int64_t opened_length_ = 0;
  std::vector<Document> documents_;
  std::vector<std::size_t> order_;
  std::size_t at_ = 0;
  std::optional<std::uint64_t> seed_;  // nothing: file order
  std::uint64_t pass_ = 0;
};

}  // namespace example
