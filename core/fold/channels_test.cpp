// What becomes of tensors at rest, of averaged and collected channels, of logs, of views, and of a lossy downlink.
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include "fold/fold_test_support.hpp"
#include "fold/served.hpp"
#include "test.hpp"

using namespace hansa;
using namespace hansa::fold;
using Catch::Matchers::Contains;

namespace {

const std::string kAdapter(kAdapterChannel);

struct Packed {  // a channel's tensors for a packet
  std::string channel;
  std::vector<std::pair<std::string, at::Tensor>> tensors;
};

void write_packet(const std::filesystem::path& path, const std::vector<Packed>& channels,
                  std::map<std::string, std::string> meta = {}) {
  PacketContents contents;
  contents.meta = std::move(meta);
  for (const auto& channel : channels) {
    PacketChannel packed{channel.channel, {}};
    for (const auto& [name, tensor] : channel.tensors)
      packed.entries.push_back({name, raw_code(dtype_of(tensor.scalar_type()), tensor.sizes().vec())});
    contents.channels.push_back(std::move(packed));
  }
  PacketFileWriter file(path, std::move(contents), Durability::Process);
  for (std::size_t c = 0; c < channels.size(); ++c) {
    for (std::size_t i = 0; i < channels[c].tensors.size(); ++i)
      file.put(file.plan().contents().channels[c].entries[i].code, 0,
               bytes_of(channels[c].tensors[i].second.contiguous()));
  }
  file.finish();
}

at::Tensor read(const std::filesystem::path& path, std::string_view channel, const std::string& name,
                std::vector<std::int64_t> shape) {
  const CodecChain raw;
  return Held({path}, raw, 0).tensor(channel, {name, DType::f32, std::move(shape)}).clone();
}

std::string meta(const std::filesystem::path& path, const char* key) {
  const MappedFile file(path);
  return PacketView(file.bytes()).meta(key).value_or("");
}

// A fold whose packets the test writes itself.
struct Bench {
  TemporaryDirectory folder;
  Instance<Aggregator> aggregator = owned<Aggregator>(std::make_unique<Sum>(), "aggregator sum");
  Instance<ServerOptimizer> optimizer = owned<ServerOptimizer>(std::make_unique<Momentum>(0.5f), "server_optimizer m");
  Instance<Privacy> privacy;
  CodecChain codecs, downlink;
  NoNoise noise;
  FoldPlan plan;
  std::vector<FoldClient> clients;

  std::filesystem::path path(const std::string& name) const { return folder.path() / name; }
  void client(NodeId node, const std::vector<Packed>& upload, double weight = 1, double factor = 1,
              std::string view = {}) {
    FoldClient one;
    one.who.node = node;
    one.who.weight = weight;
    one.who.view = std::move(view);
    one.factor = factor;
    one.spool = path("upload-" + std::to_string(node));
    write_packet(one.spool, upload);
    clients.push_back(one);
  }
  FoldOutcome run() {
    return fold::fold(plan, clients, {aggregator, optimizer, privacy, codecs, downlink, noise},
                      {path("state-0"), path("state-1"), path("log-1"), Durability::Process, {}});
  }
};

Layout two_tensors() { return {{{"x", DType::f32, {3}}, {"y", DType::f32, {2}}}, {{"", {0}}, {"", {1}}}}; }

FoldView view_of(Bench& bench, const Layout& layout, const std::string& name = {}) {
  FoldView view;
  view.name = name;
  view.trainable = layout;
  view.exchange.view = name;
  view.exchange.roles.assign(layout.tensors.size(), Role::Shared);
  view.exchange.up = view.exchange.down = {{kAdapter, layout}};
  view.base = bench.path("version-0" + name);
  view.next = bench.path("version-1" + name);
  return view;
}

Channel control(Carry carry) { return {"control", {{{"c", DType::f32, {2}}}, {{"", {0}}}}, carry, Keep::Latest, true}; }

}  // namespace

TEST_CASE(
    "tensors at rest keep their value and their optimiser state, and the part that moved says what a node lacks") {
  Bench bench;
  const auto layout = two_tensors();
  bench.plan.views = {view_of(bench, layout)};
  auto& up = bench.plan.views[0].exchange.up[0].layout;
  up = {{layout.tensors[1]}, {{"", {0}}}};
  write_packet(bench.path("version-0"), {{kAdapter, {{"x", at::full({3}, 5.0f)}, {"y", at::full({2}, 1.0f)}}}});
  write_packet(bench.path("state-0"),
               {{"optimizer", {{"x/velocity", at::full({3}, 9.0f)}, {"y/velocity", at::zeros({2})}}}});
  bench.client(1, {{kAdapter, {{"y", at::full({2}, 4.0f)}}}});
  bench.run();
  const auto next = bench.path("version-1");
  CHECK(read(next, kAdapter, "x", {3}).equal(at::full({3}, 5.0f)));
  CHECK(read(next, kAdapter, "y", {2}).equal(at::full({2}, 5.0f)));
  CHECK(read(bench.path("state-1"), "optimizer", "x/velocity", {3}).equal(at::full({3}, 9.0f)));
  CHECK(read(bench.path("state-1"), "optimizer", "y/velocity", {2}).equal(at::full({2}, 4.0f)));
  CHECK(meta(next, "moved") == "adapter/y\n");

  REQUIRE(write_part(next, bench.path("part-1"), Durability::Process));
  const CodecChain raw;
  CHECK_FALSE(Held({bench.path("part-1")}, raw, 0).tensor(kAdapter, layout.tensors[0]).defined());
  const Held held({bench.path("version-0"), bench.path("part-1")}, raw, 0);
  CHECK(held.tensor(kAdapter, layout.tensors[0]).equal(at::full({3}, 5.0f)));
  CHECK(held.tensor(kAdapter, layout.tensors[1]).equal(at::full({2}, 5.0f)));
}

TEST_CASE("where everything moved there is no part") {
  Bench bench;
  bench.plan.views = {view_of(bench, two_tensors())};
  write_packet(bench.path("version-0"), {{kAdapter, {{"x", at::zeros({3})}, {"y", at::zeros({2})}}}});
  bench.client(1, {{kAdapter, {{"x", at::zeros({3})}, {"y", at::zeros({2})}}}});
  bench.run();
  CHECK(meta(bench.path("version-1"), "moved") == "*");
  CHECK_FALSE(write_part(bench.path("version-1"), bench.path("part-1"), Durability::Process));
  CHECK_FALSE(std::filesystem::exists(bench.path("part-1")));
}

TEST_CASE("an averaged channel moves by the plain sum over the whole population, past weights and optimiser") {
  Bench bench;
  bench.plan.views = {view_of(bench, two_tensors())};
  auto& exchange = bench.plan.views[0].exchange;
  exchange.up.push_back(control(Carry::Mean));
  exchange.down.push_back(control(Carry::Mean));
  bench.plan.round.population = 5;
  bench.plan.denominator = 10;
  const Packed still{kAdapter, {{"x", at::zeros({3})}, {"y", at::zeros({2})}}};
  write_packet(bench.path("version-0"), {still, {"control", {{"c", at::full({2}, 1.0f)}}}});
  bench.client(1, {still, {"control", {{"c", at::full({2}, 10.0f)}}}}, 7);
  bench.client(2, {still, {"control", {{"c", at::full({2}, 30.0f)}}}}, 3, 0.5);
  bench.run();
  CHECK(read(bench.path("version-1"), "control", "c", {2}).equal(at::full({2}, 1.0f + 25.0f / 5)));
}

namespace {

class Collector final : public Sum {  // appends the sum of what it collected
 public:
  void begin(const RoundPlan&) override { seen_.clear(); }
  void collect(const Contribution& who, std::string_view channel, std::span<const at::Tensor> tensors) override {
    CHECK(channel == "seeds");
    seen_.push_back(who.node);
    total_ += static_cast<float>(tensors[0].numel());
  }
  Metrics finish(Results& results) override {
    results.append("entries", "sum", at::full({3}, total_));
    if (more) more(results);
    return {{"collected", static_cast<double>(seen_.size())}};
  }
  std::function<void(Results&)> more;
  std::vector<NodeId> seen_;

 private:
  float total_ = 0;
};

struct LogBench : Bench {
  Collector* rule = nullptr;
  LogBench() {
    auto made = std::make_unique<Collector>();
    rule = made.get();
    aggregator = owned<Aggregator>(std::move(made), "aggregator collector");
    auto view = view_of(*this, {});
    view.exchange.up = {{"seeds", {{{"ids", DType::u8, {-1}}}, {{"", {0}}}}, Carry::Collect}};
    view.exchange.down = {{"entries", {{{"sum", DType::f32, {-1}}}, {{"", {0}}}}, Carry::Sum, Keep::Log},
                          {"latest", {{{"l", DType::f32, {2}}}, {{"", {0}}}}}};
    plan.views = {view};
    write_packet(path("version-0"), {{"latest", {{"l", at::full({2}, 3.0f)}}}});
    for (NodeId node : {4, 9}) {
      client(node, {{"seeds", {{"ids", at::zeros({std::int64_t(node)}, at::TensorOptions().dtype(at::kByte))}}}});
    }
  }
};

}  // namespace

TEST_CASE("collected tensors reach the rule in node order, and what it appends becomes the log of the version") {
  LogBench bench;
  const auto outcome = bench.run();
  CHECK(bench.rule->seen_ == std::vector<NodeId>{4, 9});
  const MappedFile file(bench.path("log-1"));
  const PacketView view(file.bytes());
  const auto entries = downloads_of(view, 1);
  REQUIRE(entries.size() == 1);
  CHECK(entries[0].channel == "entries");
  CHECK(entries[0].tensors[0].first == "sum");
  CHECK(entries[0].tensors[0].second.equal(at::full({3}, 13.0f)));
  CHECK(read(bench.path("version-1"), "latest", "l", {2}).equal(at::full({2}, 3.0f)));
  CHECK_FALSE(std::filesystem::exists(bench.path("log-1.waiting.tmp")));
}

TEST_CASE("a rule may set its own latest channel, and what does not fit a channel is refused by name") {
  LogBench bench;
  bench.rule->more = [](Results& results) { results.append("latest", "l", at::full({2}, 8.0f)); };
  bench.run();
  CHECK(read(bench.path("version-1"), "latest", "l", {2}).equal(at::full({2}, 8.0f)));
  const auto refused = [](const std::function<void(Results&)>& more, const char* why) {
    LogBench odd;
    odd.rule->more = more;
    CHECK_THROWS_WITH(odd.run(), Contains(why));
    CHECK_FALSE(std::filesystem::exists(odd.path("version-1")));
    CHECK_FALSE(std::filesystem::exists(odd.path("log-1")));
  };
  refused([](Results& r) { r.append("nowhere", "l", at::zeros({2})); }, "'nowhere'");
  refused([](Results& r) { r.append("latest", "m", at::zeros({2})); }, "'m'");
  refused([](Results& r) { r.append("latest", "l", at::zeros({3})); }, "does not fit");
  refused([](Results& r) { r.append("entries", "sum", at::zeros({3})); }, "twice");
  refused([](Results& r) { r.append("latest", "l", at::full({2}, std::nanf(""))); }, "not finite");
  refused([](Results& r) { r.put(0, at::zeros({2})); }, "only append");
}

namespace {

class PerView final : public Sum {  // each view gets its own clients' mean value
 public:
  void reduce(const Updates& updates, Results& results) override {
    for (const auto& view : updates.views()) {
      if (view == skipped) continue;
      for (std::size_t member = 0; member < updates.group().members.size(); ++member) {
        auto sum = at::zeros(updates.tensor(member, view).shape);
        for (std::size_t c = 0; c < updates.clients(); ++c) {
          if (updates.who(c).view == view) sum.add_(updates.value(c, member));
        }
        results.put_for(view, member, sum);
      }
    }
  }
  std::string skipped = "none";
};

struct ViewBench : Bench {
  PerView* rule = nullptr;
  ViewBench() {
    auto made = std::make_unique<PerView>();
    rule = made.get();
    aggregator = owned<Aggregator>(std::move(made), "aggregator per_view");
    const Layout wide{{{"x", DType::f32, {4}}}, {{"", {0}}}}, narrow{{{"x", DType::f32, {2}}}, {{"", {0}}}};
    plan.views = {view_of(*this, wide), view_of(*this, narrow, "rank2")};
    write_packet(path("version-0"), {{kAdapter, {{"x", at::full({4}, 1.0f)}}}});
    write_packet(path("version-0rank2"), {{kAdapter, {{"x", at::full({2}, 2.0f)}}}});
    client(1, {{kAdapter, {{"x", at::full({2}, 10.0f)}}}}, 1, 1, "rank2");
    client(2, {{kAdapter, {{"x", at::full({4}, 20.0f)}}}});
  }
};

}  // namespace

TEST_CASE("each view has shapes, a version and values of its own") {
  ViewBench bench;
  bench.run();
  CHECK(read(bench.path("version-1"), kAdapter, "x", {4}).equal(at::full({4}, 21.0f)));
  CHECK(read(bench.path("version-1rank2"), kAdapter, "x", {2}).equal(at::full({2}, 12.0f)));
}

TEST_CASE("a rule that forgets a view releases nothing") {
  ViewBench bench;
  bench.rule->skipped = "rank2";
  CHECK_THROWS_WITH(bench.run(), Contains("put nothing for x of view 'rank2'"));
  CHECK_FALSE(std::filesystem::exists(bench.path("version-1")));
  CHECK_FALSE(std::filesystem::exists(bench.path("version-1rank2")));
}

namespace {

class Coarse final : public Stateless<Compressor> {  // whole numbers only; the seed does not matter
 public:
  SizePlan plan(const TensorSpec& in) const override {
    const auto n = static_cast<std::uint64_t>(in.elements());
    return {{{"", DType::f32, in.shape}}, 4 * n, 4 * n};
  }
  Encoded encode(const at::Tensor& in, Seeds) const override { return {{in.round()}, ""}; }
  at::Tensor decode(const Encoded& encoded, const TensorSpec&, std::uint64_t) const override {
    return encoded.parts[0].clone();
  }
};

}  // namespace

TEST_CASE("over a lossy downlink a client's value is what it was sent, as decoded, plus its change") {
  Bench bench;
  const Coarse coarse;
  bench.downlink = CodecChain({&coarse});
  bench.aggregator = owned<Aggregator>(std::make_unique<PerView>(), "aggregator per_view");
  const Layout layout{{{"x", DType::f32, {2}}}, {{"", {0}}}};
  bench.plan.views = {view_of(bench, layout)};
  write_packet(bench.path("version-0"), {{kAdapter, {{"x", at::full({2}, 1.4f)}}}}, {{"epoch", "0"}, {"moved", "*"}});
  write_served(bench.path("version-0"), {}, bench.downlink, 3, bench.path("served-0"), Durability::Process);
  bench.plan.views[0].sent = bench.path("served-0");
  bench.plan.down_seed = 3;
  bench.client(1, {{kAdapter, {{"x", at::full({2}, 0.25f)}}}});
  bench.run();
  CHECK(read(bench.path("version-1"), kAdapter, "x", {2}).equal(at::full({2}, 1.25f)));  // not 1.65
}

TEST_CASE("an encoded version keeps the code of what did not move, so that nobody's copy depends on what it missed") {
  Bench bench;
  const Coarse coarse;
  const CodecChain chain({&coarse});
  const auto first = bench.path("v1"), second = bench.path("v2");
  write_packet(first, {{kAdapter, {{"x", at::full({2}, 1.4f)}, {"y", at::full({2}, 2.6f)}}}},
               {{"epoch", "1"}, {"moved", "*"}});
  // x claims not to have moved: that its new value is not encoded shows that the old code was taken.
  write_packet(second, {{kAdapter, {{"x", at::full({2}, 7.4f)}, {"y", at::full({2}, 9.6f)}}}},
               {{"epoch", "2"}, {"moved", "adapter/y\n"}});
  write_served(first, {}, chain, 3, bench.path("s1"), Durability::Process);
  write_served(second, bench.path("s1"), chain, 3, bench.path("s2"), Durability::Process);
  const Held held({bench.path("s2")}, chain, 3);
  CHECK(held.tensor(kAdapter, {"x", DType::f32, {2}}).equal(at::full({2}, 1.0f)));
  CHECK(held.tensor(kAdapter, {"y", DType::f32, {2}}).equal(at::full({2}, 10.0f)));
  REQUIRE(write_part(bench.path("s2"), bench.path("p2"), Durability::Process));
  const Held layered({bench.path("s1"), bench.path("p2")}, chain, 3);
  CHECK(layered.channel(kAdapter)[0].second.equal(held.channel(kAdapter)[0].second));
  CHECK(layered.channel(kAdapter)[1].second.equal(held.channel(kAdapter)[1].second));
}
