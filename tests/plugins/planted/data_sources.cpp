// Data sources with one bug each: text files, every line a document and a row.
#include <algorithm>
#include <fstream>
#include <random>
#include <stdexcept>

#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <hansa/data_source.hpp>
#include <hansa/plugin.hpp>

namespace planted {
using namespace hansa;

class Lines : public Stateless<DataSource> {
 public:
  void open(const std::filesystem::path& silo, const Tokenizer* tokenizer, std::int64_t max_length) override {
    if (!tokenizer) throw std::runtime_error("there is no tokenizer");
    std::ifstream file(silo);
    if (!file || std::filesystem::is_directory(silo)) return unreadable(silo);
    documents_.clear();
    for (std::string line; std::getline(file, line);) {
      if (line.empty() || line == "%") continue;
      Document document;
      if (const auto begin = tokenizer->begin_of_text()) document.tokens.push_back(*begin);
      for (auto token : tokenizer->encode(line)) document.tokens.push_back(token);
      const auto most = static_cast<std::size_t>(longest(max_length)) + 1;
      if (document.tokens.size() > most) document.tokens.resize(most);
      document.bytes = bytes_of(line, document.tokens.size() - 1);
      documents_.push_back(std::move(document));
    }
    if (documents_.empty()) throw std::runtime_error(silo.string() + " is empty");
    rewind();
  }
  std::uint64_t examples() const override { return documents_.size(); }
  void shuffle(std::uint64_t seed) override {
    shuffled_ = true;
    seed_ = own_seed(seed);
    pass_ = 0;
    start();
  }
  void rewind() override {
    shuffled_ = false;
    start();
  }
  std::optional<Batch> next(std::int64_t rows) override {
    std::vector<const Document*> chosen;
    std::size_t length = 1;
    while (static_cast<std::int64_t>(chosen.size()) < rows) {
      if (at_ >= end()) {
        if (!shuffled_ || !goes_on()) break;
        ++pass_;
        start();
      }
      chosen.push_back(&documents_[order_[at_++]]);
      length = std::max(length, chosen.back()->tokens.size() - 1);
    }
    if (chosen.empty()) return std::nullopt;
    const std::vector<std::int64_t> shape{static_cast<std::int64_t>(chosen.size()), static_cast<std::int64_t>(length)};
    Batch batch;
    batch.tokens = at::zeros(shape, at::kLong);
    batch.labels = at::full(shape, -100, at::kLong);
    for (std::size_t row = 0; row < chosen.size(); ++row) {
      const auto& tokens = chosen[row]->tokens;
      const auto inputs = tokens.size() - 1;
      std::copy_n(tokens.begin(), inputs, batch.tokens.mutable_data_ptr<std::int64_t>() + row * length);
      std::copy_n(tokens.begin() + shift(), inputs, batch.labels.mutable_data_ptr<std::int64_t>() + row * length);
      batch.counted += static_cast<std::int64_t>(counted(inputs, length));
      batch.bytes += chosen[row]->bytes;
      ++batch.documents;
    }
    return batch;
  }

 protected:
  struct Document {
    std::vector<std::int64_t> tokens;
    std::int64_t bytes = 0;
  };
  virtual void unreadable(const std::filesystem::path& silo) {
    throw std::runtime_error("cannot read " + silo.string());
  }
  virtual std::int64_t longest(std::int64_t max_length) const { return max_length; }
  virtual std::int64_t bytes_of(const std::string&, std::size_t labels) const {
    return static_cast<std::int64_t>(labels);
  }
  virtual std::uint64_t own_seed(std::uint64_t seed) { return seed; }
  virtual bool goes_on() const { return true; }
  virtual bool new_order() const { return true; }
  virtual std::size_t end() const { return order_.size(); }
  virtual std::ptrdiff_t shift() const { return 1; }
  virtual std::size_t counted(std::size_t inputs, std::size_t) const { return inputs; }
  std::vector<Document> documents_;
  std::vector<std::size_t> order_;
  bool shuffled_ = false;

 private:
  void start() {
    at_ = 0;
    order_.resize(documents_.size());
    for (std::size_t i = 0; i < order_.size(); ++i) order_[i] = i;
    if (!shuffled_) return;
    std::mt19937_64 engine(seed_ * 1000003 + (new_order() ? pass_ : 0));
    for (std::size_t left = order_.size(); left > 1; --left) std::swap(order_[left - 1], order_[engine() % left]);
  }
  std::uint64_t seed_ = 0, pass_ = 0;
  std::size_t at_ = 0;
};

class DropsTheLast final : public Lines {
  std::size_t end() const override { return shuffled_ ? order_.size() : order_.size() - 1; }
};
class Unshifted final : public Lines {
  std::ptrdiff_t shift() const override { return 0; }
};
class IgnoresTheSeed final : public Lines {
  std::uint64_t own_seed(std::uint64_t) override { return 1; }
};
class RemembersShuffles final : public Lines {
  std::uint64_t own_seed(std::uint64_t seed) override { return seed + shuffles_++; }
  std::uint64_t shuffles_ = 0;
};
class Ends final : public Lines {
  bool goes_on() const override { return false; }
};
class SameOrderAgain final : public Lines {
  bool new_order() const override { return false; }
};
class TooLong final : public Lines {
  std::int64_t longest(std::int64_t) const override { return 1 << 20; }
};
class CountsPadding final : public Lines {
  std::size_t counted(std::size_t, std::size_t length) const override { return length; }
};
class BytesOfWholeLines final : public Lines {
  std::int64_t bytes_of(const std::string& line, std::size_t) const override {
    return static_cast<std::int64_t>(line.size());
  }
};
class OpensNothing final : public Lines {
  void unreadable(const std::filesystem::path&) override { documents_.assign(1, {{1, 2}, 1}); }
};
class KeepsTheFirst final : public Lines {
  void open(const std::filesystem::path& silo, const Tokenizer* tokenizer, std::int64_t max_length) override {
    if (documents_.empty()) Lines::open(silo, tokenizer, max_length);
  }
};

}  // namespace planted

HANSA_PLUGIN(org_hansa_planted_data_sources, "0.1.0") {
  using namespace planted;
  plugin.vendor("Hansa's tests").license("Apache-2.0");
  plugin.add<Lines>("right_lines", "Lines of a text file.");
  plugin.add<DropsTheLast>("drops_the_last", "The last document is never given in file order.");
  plugin.add<Unshifted>("unshifted", "Labels are the tokens themselves.");
  plugin.add<IgnoresTheSeed>("ignores_the_seed", "One order for all seeds.");
  plugin.add<RemembersShuffles>("remembers_shuffles", "Its order depends on earlier calls.");
  plugin.add<Ends>("ends", "A shuffled pass ends.");
  plugin.add<SameOrderAgain>("same_order_again", "Every shuffled pass has the order of the first.");
  plugin.add<TooLong>("too_long", "Rows are as long as lines.");
  plugin.add<CountsPadding>("counts_padding", "Padding counts.");
  plugin.add<BytesOfWholeLines>("bytes_of_whole_lines", "Counts the bytes of what it cut off.");
  plugin.add<OpensNothing>("opens_nothing", "A missing file is a silo with one document.");
  plugin.add<KeepsTheFirst>("keeps_the_first", "The first silo opened is the only one.");
}
