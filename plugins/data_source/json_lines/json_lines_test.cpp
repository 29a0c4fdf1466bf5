#include "json_lines.hpp"

#include <fstream>

#include <ATen/core/Tensor.h>

#include <hansa/testing/bare_model.hpp>

#include "base/error.hpp"
#include "data/test_tokenizers.hpp"
#include "test.hpp"

using namespace hansa;
using namespace hansa::json_lines;
using Catch::Matchers::Contains;

namespace {

struct Silo {
  explicit Silo(const std::string& text) { std::ofstream(path()) << text; }
  std::filesystem::path path() const { return directory.path() / "a.jsonl"; }
  TemporaryDirectory directory;
};
std::vector<std::int64_t> list(const at::Tensor& tensor) {
  return {tensor.data_ptr<std::int64_t>(), tensor.data_ptr<std::int64_t>() + tensor.numel()};
}
std::string learnt(const Batch& batch, const Tokenizer& tokenizer, std::int64_t row) {
  std::vector<std::int64_t> ids;
  for (const auto label : list(batch.labels[row]))
    if (label >= 0) ids.push_back(label);
  return tokenizer.decode(ids);
}
constexpr const char* kTalk =
    R"({"messages": [{"role": "user", "content": "ask"}, {"role": "assistant", "content": "answer"}]})";

}  // namespace

TEST_CASE("conversations are packed without seeing each other, and only answers are learnt where asked") {
  const Silo silo(std::string(kTalk) + "\n" + kTalk + "\n");
  const data::Words tokenizer;
  testing::QuietHost host;
  Chat source({.chat_template = "zephyr", .loss = Loss::Completions, .length = 100}, host);
  source.open(silo.path(), &tokenizer, 100);
  CHECK(source.examples() == 2);
  const auto batch = source.next(1);
  REQUIRE(batch);
  CHECK(learnt(*batch, tokenizer, 0) == "answeranswer");
  CHECK(batch->documents == 2);
  CHECK(batch->bytes == 12);
  const auto segments = list(batch->segments[0]), positions = list(batch->positions[0]);
  CHECK(segments.front() == 0);
  CHECK(segments.back() == 1);
  for (std::size_t i = 1; i < segments.size(); ++i)
    CHECK(positions[i] == (segments[i] == segments[i - 1] ? positions[i - 1] + 1 : 0));
  CHECK_FALSE(source.next(1));
}

TEST_CASE("a checkpoint's own template is asked for unless one is named") {
  const Silo silo(kTalk);
  const data::Words tokenizer;
  testing::QuietHost host;
  Chat source({}, host);
  CHECK_THROWS_WITH(source.open(silo.path(), &tokenizer, 100),
                    Contains("no chat template of its own") && Contains("llama3.1"));
}

TEST_CASE("preferences come in pairs, of which a batch holds one at least") {
  const Silo silo(
      "{\"prompt\": \"p\", \"chosen\": \" good one\", \"rejected\": \" bad\"}\n"
      "{\"prompt\": \"p\", \"chosen\": \" fine\", \"rejected\": \" poor\"}\n");
  const data::Words tokenizer;
  testing::QuietHost host;
  Preferences source({}, host);
  source.open(silo.path(), &tokenizer, 100);
  CHECK(source.examples() == 2);
  const auto batch = source.next(1);
  REQUIRE(batch);
  CHECK(batch->task == Task::Preference);
  CHECK(batch->tokens.size(0) == 2);
  CHECK(learnt(*batch, tokenizer, 0) == " good one");
  CHECK(learnt(*batch, tokenizer, 1) == " bad");
  CHECK(batch->documents == 1);
  source.shuffle(3);
  for (int i = 0; i < 5; ++i) {
    const auto next = source.next(5);
    CHECK(next->tokens.size(0) == 4);
    const bool first = learnt(*next, tokenizer, 0) == " good one";
    CHECK(learnt(*next, tokenizer, 1) == (first ? " bad" : " poor"));
  }
}

TEST_CASE("classes are numbers in the order of their names, and skipped lines are told and counted") {
  const Silo silo(
      "{\"text\": \"one\", \"label\": \"b\"}\n{\"text\": \"two\", \"label\": \"c\"}\n{\"text\": \"three\", \"label\": "
      "\"a\"}\n");
  const data::Words tokenizer;
  testing::QuietHost host;
  Classes strict({.classes = {"a", "b"}}, host);
  CHECK_THROWS_WITH(strict.open(silo.path(), &tokenizer, 100), Contains("a.jsonl:2: \"label\" is none of the classes"));
  Classes source({.classes = {"a", "b"}, .on_bad = OnBad::Skip}, host);
  source.open(silo.path(), &tokenizer, 100);
  const auto batch = source.next(4);
  REQUIRE(batch);
  CHECK(batch->task == Task::Classification);
  CHECK(list(batch->labels) == std::vector<std::int64_t>{1, 0});
  CHECK(source.facts() == Metrics{{"records_skipped", 1}});
  REQUIRE(host.logged.size() == 1);
  CHECK_THAT(host.logged[0], Contains("1 of 3 records left out") && Contains("a.jsonl:2"));
}

TEST_CASE("rows longer than the model's sequences and silos smaller than a batch are told") {
  const Silo silo("{\"text\": \"one two three\"}\n");
  const data::Words tokenizer;
  testing::QuietHost host;
  JsonText too_long({.length = 200}, host);
  CHECK_THROWS_WITH(too_long.open(silo.path(), &tokenizer, 100),
                    Contains("length = 200") && Contains("has 100 tokens"));
  JsonText source({}, host);
  source.open(silo.path(), &tokenizer, 100);
  source.shuffle(1);
  source.next(4);
  source.next(4);
  REQUIRE(host.logged.size() == 1);
  CHECK_THAT(host.logged[0], Contains("fill less than one batch of 4 rows of 100 tokens"));
  Completions cut({.prompt = "text", .completion = "text", .length = 3, .too_long = TooLong::Error}, host);
  CHECK_THROWS_WITH(cut.open(silo.path(), &tokenizer, 100),
                    Contains("longer than a row of 3 tokens") && Contains("too_long"));
}
