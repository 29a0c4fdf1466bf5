// Tokens kept on disk, rows made of them, partitions, statistics.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <fstream>
#include <numeric>
#include <set>

#include <ATen/core/Tensor.h>

#include <hansa/testing/bare_model.hpp>

#include "base/error.hpp"
#include "base/rng.hpp"
#include "data/partition.hpp"
#include "data/rows.hpp"
#include "data/statistics.hpp"
#include "data/test_tokenizers.hpp"
#include "data/token_cache.hpp"
#include "data/tokenise.hpp"
#include "test.hpp"

using namespace hansa;
using namespace hansa::data;
using Catch::Matchers::Contains;
namespace fs = std::filesystem;

namespace {

Encoded random_example(SplitMix64& random) {
  Encoded one{.label = static_cast<std::int32_t>(random.below(3))};
  for (auto n = 2 + random.below(30); n > 0; --n)
    one.tokens.push_back(kept(static_cast<std::int64_t>(random.below(1000)), random.below(3) > 0));
  one.bytes = random.below(100);
  for (std::size_t i = 1; i < one.tokens.size(); ++i) one.counted += one.tokens[i] >= 0;
  return one;
}
Tally fill(TokenSink& sink, std::uint64_t seed, int count) {
  SplitMix64 random(seed);
  for (int i = 0; i < count; ++i) sink.add(random_example(random));
  return {static_cast<std::uint64_t>(count), 3, "a.txt:7: why"};
}
Tokens in_memory(std::uint64_t seed, int count) {
  MemorySink sink;
  auto tally = fill(sink, seed, count);
  return sink.finish(std::move(tally));
}
bool same(const Tokens& a, const Tokens& b) {
  return std::ranges::equal(a.ids(), b.ids()) && a.examples().size() == b.examples().size() &&
         std::memcmp(a.examples().data(), b.examples().data(), a.examples().size_bytes()) == 0 &&
         a.tally().records == b.tally().records && a.tally().skipped == b.tally().skipped &&
         a.tally().first_skipped == b.tally().first_skipped;
}
std::vector<std::int64_t> list(const at::Tensor& tensor) {
  return {tensor.data_ptr<std::int64_t>(), tensor.data_ptr<std::int64_t>() + tensor.numel()};
}
Tokens tokens_from(std::vector<std::vector<std::int32_t>> examples, std::int32_t label = -1) {
  MemorySink sink;
  for (auto& tokens : examples) {
    Encoded one{.tokens = std::move(tokens), .bytes = 10, .label = label};
    for (std::size_t i = 1; i < one.tokens.size(); ++i) one.counted += one.tokens[i] >= 0;
    sink.add(one);
  }
  return sink.finish({examples.size(), 0, {}});
}
std::vector<std::size_t> sizes_of(const Assignment& assignment, std::size_t nodes) {
  std::vector<std::size_t> sizes(nodes);
  for (const auto node : assignment) ++sizes.at(node);
  return sizes;
}

}  // namespace

TEST_CASE("tokens from the cache are those from memory, bit for bit, and are built once") {
  TemporaryDirectory directory;
  testing::QuietHost host;
  TokenCache cache(directory.path() / "cache", host);
  const auto want = in_memory(1, 40000);  // several buffers
  int built = 0;
  const auto build = [&](TokenSink& sink) {
    ++built;
    return fill(sink, 1, 40000);
  };
  CHECK(same(cache.get("key", build), want));
  CHECK(same(TokenCache(directory.path() / "cache", host).get("key", build), want));
  CHECK(built == 1);
  CHECK((fs::status(directory.path() / "cache").permissions() & fs::perms::others_all) == fs::perms::none);
  fs::resize_file(directory.path() / "cache/key/ids", 100);  // damaged: built again
  CHECK(same(cache.get("key", build), want));
  CHECK(built == 2);
  CHECK_THROWS_WITH(cache.get("other", [](TokenSink&) -> Tally { throw Error("bad line"); }), Contains("bad line"));
  CHECK_FALSE(fs::exists(directory.path() / "cache/other"));
  CHECK_FALSE(fs::exists(directory.path() / "cache/other.part"));
}

TEST_CASE("killed while it was built, an entry is built anew; two at once build it once") {
  TemporaryDirectory directory;
  const auto folder = directory.path() / "cache";
  const auto want = in_memory(2, 40000);
  const auto in_child = [&](const std::function<Tally(TokenSink&)>& build) {
    const auto child = fork();
    if (child != 0) return child;
    testing::QuietHost host;
    try {
      TokenCache(folder, host).get("key", build);
      _exit(0);
    } catch (...) {
      _exit(1);
    }
  };
  const auto killed = in_child([](TokenSink& sink) {
    auto tally = fill(sink, 3, 40000);  // other text, partly written
    raise(SIGKILL);
    return tally;
  });
  int status = 0;
  REQUIRE(waitpid(killed, &status, 0) == killed);
  REQUIRE(WIFSIGNALED(status));
  REQUIRE(fs::exists(folder / "key.part"));
  const auto build = [&](TokenSink& sink) {
    std::ofstream(directory.path() / "built", std::ios::app) << 'x';
    return fill(sink, 2, 40000);
  };
  const auto first = in_child(build), second = in_child(build);
  for (const auto child : {first, second}) {
    REQUIRE(waitpid(child, &status, 0) == child);
    CHECK(status == 0);
  }
  CHECK(fs::file_size(directory.path() / "built") == 1);
  CHECK_FALSE(fs::exists(folder / "key.part"));
  testing::QuietHost host;
  CHECK(same(TokenCache(folder, host).get("key", build), want));
}

TEST_CASE("the cache's key hangs on tokenizer, files, format and what becomes of bad lines, not on the folder") {
  TemporaryDirectory directory;
  const auto write = [&](const std::string& name, const std::string& text) {
    fs::create_directories((directory.path() / name).parent_path());
    std::ofstream(directory.path() / name) << text;
    return directory.path() / name;
  };
  const auto a = write("a/x.txt", "one\n%\ntwo"), moved = write("b/x.txt", "one\n%\ntwo"),
             other = write("c/x.txt", "one");
  Words tokenizer, another;
  another.digest_ = "another";
  const auto percent = text_format("%"), none = text_format("");
  const auto key = cache_key(a, {*percent, tokenizer});
  CHECK(key.size() == 32);
  CHECK(cache_key(moved, {*percent, tokenizer}) == key);
  CHECK(cache_key(other, {*percent, tokenizer}) != key);
  CHECK(cache_key(a, {*none, tokenizer}) != key);
  CHECK(cache_key(a, {*percent, another}) != key);
  CHECK(cache_key(a, {*percent, tokenizer, 0, OnBad::Skip}) != key);
  testing::QuietHost host;
  const Reading reading{*percent, tokenizer};
  CHECK(same(tokens_of(a, reading, (directory.path() / "cache").string(), host), tokens_of(a, reading, "off", host)));
  CHECK(fs::exists(directory.path() / "cache" / key / "manifest.json"));
}

TEST_CASE("windows of masked examples lose and repeat no label, whatever their length") {
  const auto tokens = in_memory(4, 300);
  for (const std::int64_t length : {1, 3, 7, 100}) {
    const auto windows = windows_of(tokens, Task::Language, length, Long::Windows);
    std::vector<std::multiset<std::int32_t>> seen(tokens.examples().size());
    std::vector<std::int64_t> bytes(tokens.examples().size());
    for (const auto& window : windows.all) {
      const auto& example = tokens.examples()[window.example];
      CHECK(window.count <= length);
      std::int64_t labels = 0;
      for (std::uint32_t i = 1; i <= window.count; ++i) {
        const auto token = tokens.ids_of(example)[window.first + i];
        if (token < 0) continue;
        seen[window.example].insert(token);
        ++labels;
      }
      bytes[window.example] += bytes_of(example, window.before, labels);
    }
    for (std::size_t e = 0; e < seen.size(); ++e) {
      const auto& example = tokens.examples()[e];
      std::multiset<std::int32_t> want;
      for (std::uint32_t i = 1; i < example.count; ++i)
        if (tokens.ids_of(example)[i] >= 0) want.insert(tokens.ids_of(example)[i]);
      REQUIRE(seen[e] == want);
      if (example.learnt > 0) REQUIRE(bytes[e] == static_cast<std::int64_t>(example.bytes));
    }
  }
}

TEST_CASE("examples longer than a row are cut, left out or refused") {
  const auto tokens = tokens_from({{1, 2, 3}, {1, ~2, ~3, ~4, 5, 6}, {1, 2, 3, 4, 5, 6}});
  const auto cut = windows_of(tokens, Task::Language, 3, Long::Cut);
  CHECK(cut.examples == 2);  // of the second nothing to learn is left
  CHECK(cut.too_long == 2);
  CHECK(cut.dropped == 1);
  CHECK(cut.all[1].count == 3);
  CHECK(windows_of(tokens, Task::Language, 3, Long::Skip).examples == 1);
  CHECK_THROWS_WITH(windows_of(tokens, Task::Language, 3, Long::Error), Contains("the longest has 5"));
  const auto pairs = windows_of(tokens_from({{1, 2}, {1, 3}, {1, ~2, ~3, 4}, {1, 2}}), Task::Preference, 2, Long::Cut);
  CHECK(pairs.examples == 1);
  CHECK(pairs.all.size() == 2);
}

TEST_CASE("pairs stand in neighbouring rows, padded, and only answers are labels") {
  const auto tokens = tokens_from({{1, ~2, 3, 4}, {1, ~2, 5}, {1, 6}, {1, 7}});
  const auto windows = windows_of(tokens, Task::Preference, 8, Long::Cut);
  RowBuilder builder(tokens, Task::Preference, 4, 8, 1);
  REQUIRE(builder.add(std::span(windows.all).subspan(0, 2)));
  REQUIRE(builder.add(std::span(windows.all).subspan(2, 2)));
  CHECK_FALSE(builder.add(std::span(windows.all).subspan(0, 2)));
  const auto batch = builder.take();
  CHECK(batch.task == Task::Preference);
  CHECK(list(batch.tokens) == std::vector<std::int64_t>{1, 2, 3, 1, 2, 0, 1, 0, 0, 1, 0, 0});
  CHECK(list(batch.labels) == std::vector<std::int64_t>{-100, 3, 4, -100, 5, -100, 6, -100, -100, 7, -100, -100});
  CHECK(list(batch.segments) == std::vector<std::int64_t>{0, 0, 0, 0, 0, -1, 0, -1, -1, 0, -1, -1});
  CHECK(batch.documents == 2);
  CHECK(batch.counted == 5);
}

TEST_CASE("a classified row is the whole text with one class") {
  const auto tokens = tokens_from({{1, 2, 3}, {4, 5}}, 2);
  const auto windows = windows_of(tokens, Task::Classification, 8, Long::Cut);
  RowBuilder builder(tokens, Task::Classification, 2, 8, 1);
  for (const auto& window : windows.all) REQUIRE(builder.add({&window, 1}));
  const auto batch = builder.take();
  CHECK(list(batch.tokens) == std::vector<std::int64_t>{1, 2, 3, 4, 5, 0});
  CHECK(list(batch.labels) == std::vector<std::int64_t>{2, 2});
  CHECK(list(batch.segments) == std::vector<std::int64_t>{0, 0, 0, 0, 0, -1});
  CHECK(batch.counted == 2);
  CHECK(batch.documents == 2);
}

TEST_CASE("draws from a Dirichlet distribution have its mean and variance") {
  constexpr std::size_t kNodes = 5;
  constexpr int kDraws = 4000;
  for (const double alpha : {0.05, 0.5, 1.0, 20.0}) {
    double sum = 0, squares = 0;
    for (int d = 0; d < kDraws; ++d) {
      const auto shares = dirichlet(kNodes, alpha, static_cast<std::uint64_t>(d));
      CHECK(std::accumulate(shares.begin(), shares.end(), 0.0) == Approx(1));
      for (const auto share : shares) {
        sum += share;
        squares += share * share;
      }
    }
    const double mean = sum / (kDraws * kNodes), variance = squares / (kDraws * kNodes) - mean * mean;
    const double expected = (1.0 / kNodes) * (1 - 1.0 / kNodes) / (kNodes * alpha + 1);
    CHECK(mean == Approx(1.0 / kNodes));
    CHECK(variance == Approx(expected).epsilon(0.06));
  }
  CHECK_THROWS_WITH(dirichlet(2, 0, 1), Contains("alpha"));
}

TEST_CASE("every partition deals each record once, keeps its promise and is a function of its seed") {
  std::vector<std::uint32_t> labels(1000);
  for (std::size_t i = 0; i < labels.size(); ++i) labels[i] = static_cast<std::uint32_t>(i * 7 % 10);
  for (const auto size : sizes_of(deal_evenly(1003, 10, 1), 10)) CHECK((size == 100 || size == 101));
  CHECK(deal_evenly(50, 5, 1) == deal_evenly(50, 5, 1));
  CHECK(deal_evenly(50, 5, 1) != deal_evenly(50, 5, 2));

  // With a large alpha shares are even; with a small one a label lies with few nodes.
  const auto largest_share = [&](double alpha) {
    const auto assignment = deal_by_dirichlet(labels, 4, alpha, 3);
    double sum = 0;
    for (std::uint32_t label = 0; label < 10; ++label) {
      std::vector<double> held(4);
      for (std::size_t i = 0; i < labels.size(); ++i)
        if (labels[i] == label) ++held[assignment[i]];
      sum += *std::ranges::max_element(held) / 100;
    }
    return sum / 10;
  };
  CHECK(largest_share(1e6) < 0.3);
  CHECK(largest_share(0.01) > 0.9);
  CHECK(deal_by_dirichlet(labels, 4, 0.3, 3) == deal_by_dirichlet(labels, 4, 0.3, 3));

  const auto shards = deal_by_shards(labels, 5, 2, 1);
  for (const auto size : sizes_of(shards, 5)) CHECK(size == 200);
  for (std::uint32_t node = 0; node < 5; ++node) {
    std::set<std::uint32_t> held;
    for (std::size_t i = 0; i < labels.size(); ++i)
      if (shards[i] == node) held.insert(labels[i]);
    CHECK(held.size() <= 2);
  }

  const auto users = deal_by_value(labels, 10);
  CHECK(users == Assignment(labels.begin(), labels.end()));
  const auto few = deal_by_value(labels, 3);
  std::map<std::uint32_t, std::set<std::uint32_t>> nodes_of;
  for (std::size_t i = 0; i < labels.size(); ++i) nodes_of[labels[i]].insert(few[i]);
  for (const auto& [label, nodes] : nodes_of) CHECK(nodes.size() == 1);
  CHECK(smallest_share(few, 3) == 300);

  const auto skewed = sizes_of(deal_by_quantity(1000, 10, 0.2, 5), 10);
  CHECK(std::accumulate(skewed.begin(), skewed.end(), std::size_t{0}) == 1000);
  CHECK(*std::ranges::max_element(skewed) > 250);
  CHECK_THROWS_WITH(deal_evenly(3, 4, 1), Contains("3 records cannot be dealt to 4 nodes"));
}

TEST_CASE("statistics agree with their definitions") {
  CHECK(quantile({5, 1, 3, 2, 4}, 0.5) == 3);
  CHECK(quantile({5, 1, 3, 2, 4}, 1) == 5);
  CHECK(quantile({7}, 0.95) == 7);
  CHECK(quantile({}, 0.5) == 0);
  CHECK(gini({1, 1, 1, 1}) == Approx(0).margin(1e-12));
  CHECK(gini({0, 0, 0, 4}) == Approx(0.75));
  std::vector<SiloStatistics> silos(2);
  silos[0].counts = {{1, 5}, {2, 5}};
  silos[1].counts = {{3, 8}};
  CHECK(divergences(silos)[0] == Approx(1));  // nothing in common
  silos[1].counts = {{1, 1}, {2, 1}};
  CHECK(divergences(silos)[1] == Approx(0).margin(1e-12));
  silos[1].counts = {{1, 1}};  // p = (1/2, 1/2), q = (1, 0): 1/2 (0.5 log2(2/3) + 0.5 + log2(4/3))
  CHECK(divergences(silos)[0] == Approx(0.5 * (0.5 * std::log2(2.0 / 3) + 0.5 + std::log2(4.0 / 3))));
  silos[0].labels = {{"a", 3}, {"b", 1}};
  silos[1].labels = {{"b", 4}};
  CHECK(label_distances(silos)[0] == Approx(0.375));
}
