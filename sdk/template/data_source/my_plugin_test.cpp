#include "my_plugin.hpp"

#include <unistd.h>

#include <fstream>
#include <set>

#include <ATen/ops/equal.h>
#include <hansa/testing/plain_test.hpp>

using example::MyPlugin;
using hansa::testing::promise;

namespace {

struct Bytes final : hansa::Tokenizer {  // a token for each byte, and a start token
  std::vector<std::int64_t> encode(std::string_view text) const override { return {text.begin(), text.end()}; }
  std::string decode(const std::vector<std::int64_t>& ids) const override { return {ids.begin(), ids.end()}; }
  std::int64_t size() const override { return 257; }
  std::optional<std::int64_t> begin_of_text() const override { return 256; }
  std::optional<std::int64_t> end_of_text() const override { return std::nullopt; }
};

class Silo {  // a file that goes away
 public:
  explicit Silo(const std::string& text)
      : path_(std::filesystem::temp_directory_path() / ("my_plugin_test_" + std::to_string(getpid()) + ".txt")) {
    std::ofstream(path_) << text;
  }
  ~Silo() { std::filesystem::remove(path_); }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

void lines_become_rows() {
  const Silo silo("ab\n\ncde\n");
  const Bytes bytes;
  MyPlugin data({.length = 8});
  data.open(silo.path(), &bytes, 100);
  promise(data.examples() == 2, "not two documents");
  const auto batch = data.next(5);
  promise(batch && batch->tokens.size(0) == 2 && batch->tokens.size(1) == 3, "another shape");
  promise(batch->counted == 5 && batch->bytes == 5 && batch->documents == 2, "other counts");
  promise(batch->labels.const_data_ptr<std::int64_t>()[0] == 'a', "a label is not the next token");
  promise(batch->labels.const_data_ptr<std::int64_t>()[2] == -100, "padding is counted");
  promise(!data.next(5), "a pass in file order did not end");
}

void a_shuffled_pass_hangs_on_the_seed_and_never_ends() {
  std::string text;
  for (char c = 'a'; c <= 'z'; ++c) text += std::string(1, c) + "\n";
  const Silo silo(text);
  const Bytes bytes;
  MyPlugin data({}), same({});
  data.open(silo.path(), &bytes, 100);
  same.open(silo.path(), &bytes, 100);
  data.shuffle(7);
  same.shuffle(7);
  const auto first = data.next(26);
  promise(at::equal(first->labels, same.next(26)->labels), "the same seed gave another order");
  const auto* labels = first->labels.const_data_ptr<std::int64_t>();
  promise(std::set<std::int64_t>(labels, labels + 26).size() == 26, "a pass left a document out");
  promise(!at::equal(data.next(26)->labels, first->labels), "the next pass has the same order");
}

void what_cannot_be_read_is_refused() {
  const Silo empty("\n");
  const Bytes bytes;
  MyPlugin data({});
  hansa::testing::promise_throws([&] { data.open(empty.path(), &bytes, 100); }, "an empty silo was opened");
  hansa::testing::promise_throws([&] { data.open("/nowhere.txt", &bytes, 100); }, "a missing file was opened");
  hansa::testing::promise_throws([&] { data.open(empty.path(), nullptr, 100); }, "opened without a tokenizer");
}

}  // namespace

int main() {
  return hansa::testing::run_cases(
      {{"lines become rows", lines_become_rows},
       {"a shuffled pass hangs on the seed and never ends", a_shuffled_pass_hangs_on_the_seed_and_never_ends},
       {"what cannot be read is refused", what_cannot_be_read_is_refused}});
}
