#include "text.hpp"

#include <fstream>
#include <set>

#include <ATen/core/Tensor.h>
#include <ATen/TensorOperators.h>

#include <hansa/testing/bare_model.hpp>

#include "base/error.hpp"
#include "test.hpp"

using namespace hansa;
using namespace hansa::text;
using Catch::Matchers::Contains;

namespace {

// A byte is a token; 256 ends a text.
class Bytes : public Tokenizer {
 public:
  explicit Bytes(bool ends = true) : ends_(ends) {}
  std::vector<std::int64_t> encode(std::string_view text) const override {
    ++encoded;
    std::vector<std::int64_t> ids;
    for (unsigned char c : text) ids.push_back(c);
    return ids;
  }
  std::string decode(const std::vector<std::int64_t>&) const override { return {}; }
  std::int64_t size() const override { return 257; }
  std::optional<std::int64_t> begin_of_text() const override { return std::nullopt; }
  std::optional<std::int64_t> end_of_text() const override {
    return ends_ ? std::optional<std::int64_t>(256) : std::nullopt;
  }
  mutable int encoded = 0;

 private:
  bool ends_;
};

struct Silo {
  explicit Silo(const std::string& text) { std::ofstream(path(), std::ios::binary) << text; }
  std::filesystem::path path() const { return directory.path() / "a.txt"; }
  TemporaryDirectory directory;
};

struct Sums {
  std::int64_t bytes = 0, counted = 0, documents = 0;
  std::multiset<std::int64_t> labels;
};
Sums one_pass(Text& source, std::int64_t rows) {
  source.rewind();
  Sums sums;
  while (auto batch = source.next(rows)) {
    sums.bytes += batch->bytes;
    sums.counted += batch->counted;
    sums.documents += batch->documents;
    std::int64_t counted = 0;
    const auto* labels = batch->labels.data_ptr<std::int64_t>();
    for (std::int64_t i = 0; i < batch->labels.numel(); ++i)
      if (labels[i] >= 0) {
        sums.labels.insert(labels[i]);
        ++counted;
      }
    CHECK(counted == batch->counted);
  }
  return sums;
}
std::vector<std::int64_t> list(const at::Tensor& row) {
  return {row.data_ptr<std::int64_t>(), row.data_ptr<std::int64_t>() + row.numel()};
}
void fails(const std::string& text, Params params, const std::string& words) {
  Silo silo(text);
  testing::QuietHost host;
  Bytes tokenizer;
  Text source(std::move(params), host);
  CHECK_THROWS_WITH(source.open(silo.path(), &tokenizer, 100), Contains(words));
}

}  // namespace

TEST_CASE("packed rows hold several documents with positions and segments of their own") {
  Silo silo("ab\n%\ncde\r\n%\r\n\n%\nfghij\n");
  testing::QuietHost host;
  Bytes tokenizer;
  Text source({.length = 8}, host);
  source.open(silo.path(), &tokenizer, 100);
  CHECK(source.examples() == 3);
  auto batch = source.next(2);
  REQUIRE(batch);
  CHECK(list(batch->tokens[0]) == std::vector<std::int64_t>{256, 'a', 'b', 256, 'c', 'd', 'e'});
  CHECK(list(batch->labels[0]) == std::vector<std::int64_t>{'a', 'b', 256, 'c', 'd', 'e', 256});
  CHECK(list(batch->positions[0]) == std::vector<std::int64_t>{0, 1, 2, 0, 1, 2, 3});
  CHECK(list(batch->segments[0]) == std::vector<std::int64_t>{0, 0, 0, 1, 1, 1, 1});
  CHECK(list(batch->segments[1]) == std::vector<std::int64_t>{0, 0, 0, 0, 0, 0, -1});
  CHECK(batch->bytes == 10);
  CHECK(batch->counted == 13);
  CHECK(batch->documents == 3);
  CHECK_FALSE(source.next(2));
}

TEST_CASE("a long document is cut into windows that lose and repeat no label") {
  Silo silo("abcdefghij");
  testing::QuietHost host;
  Bytes tokenizer;
  Text source({.length = 4}, host);
  source.open(silo.path(), &tokenizer, 100);
  auto batch = source.next(3);
  CHECK(list(batch->tokens[1]) == std::vector<std::int64_t>{'d', 'e', 'f', 'g'});
  CHECK(list(batch->labels[1]) == std::vector<std::int64_t>{'e', 'f', 'g', 'h'});
  CHECK(list(batch->positions[1]) == std::vector<std::int64_t>{0, 1, 2, 3});
  const auto sums = one_pass(source, 1);
  CHECK(sums.counted == 11);
  CHECK(sums.bytes == 10);
  CHECK(sums.documents == 1);
}

TEST_CASE("packing, padding and row lengths change no sum") {
  Silo silo("one\n%\ntwo and a half, which is longer\n%\nüñïçødé\n%\nx\n");
  testing::QuietHost host;
  Bytes tokenizer;
  std::optional<Sums> first;
  for (auto mode : {Mode::Pack, Mode::Pad})
    for (std::int64_t length : {1, 5, 64}) {
      Text source({.length = length, .mode = mode}, host);
      source.open(silo.path(), &tokenizer, 100);
      for (std::int64_t rows : {1, 3}) {
        const auto sums = one_pass(source, rows);
        if (!first) first = sums;
        CHECK(sums.bytes == 3 + 31 + 13 + 1);
        CHECK(sums.counted == first->counted);
        CHECK(sums.documents == 4);
        CHECK(sums.labels == first->labels);
      }
    }
}

TEST_CASE("an order is a function of the seed, goes on for ever, and each pass has another one") {
  std::string text;
  for (char c = 'a'; c <= 'z'; ++c) text += std::string(1, c) + "\n%\n";
  Silo silo(text);
  testing::QuietHost host;
  Bytes tokenizer;
  Text source({.length = 2, .mode = Mode::Pad}, host);
  source.open(silo.path(), &tokenizer, 100);
  auto letters = [&](int count) {
    std::vector<std::int64_t> seen;
    for (int i = 0; i < count; ++i) seen.push_back(source.next(1)->labels[0][0].item<std::int64_t>());
    return seen;
  };
  source.shuffle(1);
  const auto first = letters(26), second = letters(26);
  CHECK(std::set<std::int64_t>(first.begin(), first.end()).size() == 26);
  CHECK(std::multiset<std::int64_t>(first.begin(), first.end()) ==
        std::multiset<std::int64_t>(second.begin(), second.end()));
  CHECK(first != second);
  source.shuffle(1);
  CHECK(letters(26) == first);
  source.shuffle(2);
  CHECK(letters(26) != first);
}

TEST_CASE("opening a silo again reads no file and encodes nothing") {
  Silo a("some text"), b("other text");
  testing::QuietHost host;
  Bytes tokenizer;
  Text source({}, host);
  source.open(a.path(), &tokenizer, 100);
  source.open(b.path(), &tokenizer, 100);
  std::filesystem::remove(a.path());
  source.open(a.path(), &tokenizer, 100);
  CHECK(tokenizer.encoded == 2);
  CHECK(one_pass(source, 1).bytes == 9);
}

TEST_CASE("a directory is its .txt files in name order") {
  Silo silo("second");
  std::ofstream(silo.directory.path() / "0.txt") << "first";
  std::ofstream(silo.directory.path() / "notes.md") << "\xff";
  testing::QuietHost host;
  Bytes tokenizer;
  Text source({}, host);
  source.open(silo.directory.path(), &tokenizer, 100);
  CHECK(source.examples() == 2);
  CHECK(source.next(1)->labels[0][0].item<std::int64_t>() == 'f');
}

TEST_CASE("bad text ends the work with file and line, or is left out with a warning") {
  fails("", {}, "no text in it");
  fails("%\n \n%\n", {}, "no text in it");
  fails("fine\n%\nnot \xff fine", {}, "a.txt:3: byte 0xff is not valid UTF-8");
  fails(std::string("a\nb\0c", 5), {}, "a.txt:2: a NUL byte");
  fails("\xff", {.on_bad = OnBad::Skip}, "1 records were skipped");
  Silo silo("fine\n%\nnot \xff fine\n%\nalso fine");
  testing::QuietHost host;
  Bytes tokenizer;
  Text source({.on_bad = OnBad::Skip}, host);
  source.open(silo.path(), &tokenizer, 100);
  CHECK(source.examples() == 2);
  REQUIRE(host.logged.size() == 1);
  CHECK_THAT(host.logged[0], Contains("1 of 3 records left out") && Contains("a.txt:3"));
}

TEST_CASE("missing silos and tokenizers are named") {
  testing::QuietHost host;
  Bytes tokenizer;
  Text source({}, host);
  TemporaryDirectory empty;
  CHECK_THROWS_WITH(source.open(empty.path() / "nowhere", &tokenizer, 100), Contains("nowhere"));
  CHECK_THROWS_WITH(source.open(empty.path(), &tokenizer, 100), Contains("no .txt file"));
  CHECK_THROWS_WITH(source.open(empty.path(), nullptr, 100), Contains("tokenizer"));
  CHECK_THROWS_WITH(source.next(1), Contains("before a silo was opened"));
}

TEST_CASE("one byte, one huge line and a tokenizer without an end all work") {
  testing::QuietHost host;
  Bytes with, without(false);
  Silo tiny("a"), huge(std::string(10'000'000, 'x'));
  Text source({.separator = ""}, host);
  source.open(tiny.path(), &with, 100);
  CHECK(one_pass(source, 4).bytes == 1);
  source.shuffle(3);
  CHECK(source.next(2)->counted >= 2);  // goes round
  source.open(huge.path(), &with, 1000);
  CHECK(one_pass(source, 64).bytes == 10'000'000);
  CHECK_THROWS_WITH(source.open(tiny.path(), &without, 100), Contains("neither a start nor an end token"));
  Silo two("ab");
  source.open(two.path(), &without, 100);
  CHECK(one_pass(source, 4).bytes == 1);  // nothing foretells the first token
}
