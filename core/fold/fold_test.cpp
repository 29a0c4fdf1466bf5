#include "fold/fold.hpp"

#include <sys/wait.h>
#include <unistd.h>
#include <algorithm>
#include <csignal>
#include <limits>
#include <set>

#include <ATen/ops/ones.h>
#include <ATen/Parallel.h>

#include "fold/fold_test_support.hpp"

using namespace hansa;
using namespace hansa::fold;

namespace {

std::set<std::string> names_in(const std::filesystem::path& folder) {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) names.insert(entry.path().filename());
  return names;
}

struct Threads {  // LibTorch's, for one test
  explicit Threads(int count) { at::set_num_threads(count); }
  ~Threads() { at::set_num_threads(1); }
};

class PutsBySlices final : public Sum {
 public:
  void reduce(const Updates& updates, Results& results) override {
    constexpr std::int64_t kSlice = 1000;
    for (std::size_t member = 0; member < updates.group().members.size(); ++member) {
      const auto count = updates.tensor(member).elements();
      if (count == 0) results.put_slice(member, 0, at::zeros({0}));
      for (std::int64_t first = 0; first < count; first += kSlice) {
        auto sum = at::zeros({std::min(kSlice, count - first)});
        for (std::size_t client = 0; client < updates.clients(); ++client) {
          const auto part = updates.slice(client, member, first, sum.numel());
          REQUIRE(part.numel() == sum.numel());
          for (std::int64_t i = 0; i < sum.numel(); ++i) {
            sum.data_ptr<float>()[i] +=
                static_cast<float>(updates.who(client).weight) * part.const_data_ptr<float>()[i];
          }
        }
        results.put_slice(member, first, sum);
      }
    }
  }
};

class Surveyor final : public Sum {
 public:
  explicit Surveyor(std::vector<std::string>& calls) : calls_(calls) {}
  void begin(const RoundPlan& plan) override { calls_.push_back("begin " + std::to_string(plan.round)); }
  bool surveys() const override { return true; }
  void survey(const Updates& updates) override { calls_.push_back("survey " + updates.tensor(0).name); }
  void reduce(const Updates& updates, Results& results) override {
    calls_.push_back("reduce " + updates.tensor(0).name);
    Sum::reduce(updates, results);
  }
  Metrics finish(Results&) override { return {{"called", static_cast<double>(calls_.size())}}; }

 private:
  std::vector<std::string>& calls_;
};

class Passes final : public Sum {  // the first client's tensor as it stands in the spool
 public:
  void reduce(const Updates& updates, Results& results) override {
    for (std::size_t member = 0; member < updates.group().members.size(); ++member)
      results.put(member, updates.delta(0, member));
  }
};

template <class Act>
class Acts final : public Sum {
 public:
  explicit Acts(Act act) : act_(act) {}
  void reduce(const Updates& updates, Results& results) override {
    Sum::reduce(updates, results);
    act_(updates, results);
  }

 private:
  Act act_;
};
template <class Act>
Instance<Aggregator> acts(Act act) {
  return owned<Aggregator>(std::make_unique<Acts<Act>>(act), "aggregator odd");
}

class NotFinite final : public Stateless<ServerOptimizer> {
 public:
  std::vector<TensorSpec> state(const TensorSpec&) const override { return {}; }
  void step(std::string_view, Index index, at::Tensor& parameter, const at::Tensor&, std::span<at::Tensor>) override {
    if (index == 1) parameter.data_ptr<float>()[3] = std::numeric_limits<float>::infinity();
  }
};

bool contains(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }
std::string message_of(Federation& federation) {
  try {
    federation.run();
  } catch (const std::exception& failed) {
    return failed.what();
  }
  return {};
}

}  // namespace

TEST_CASE("the fold adds the weighted mean of the clipped updates, bit for bit, whatever the number of threads") {
  for (const int threads : {1, 2, 4}) {
    const Threads use(threads);
    Federation federation;
    federation.run();
    CHECK(read_values(federation.version(1)) == plus(federation.base, federation.mean()));
  }
}

TEST_CASE("the outcome names the file's size and checksum, also when groups come out of the layout's order") {
  Federation federation;
  const auto outcome = federation.run();
  const MappedFile file(federation.version(1));
  CHECK(outcome.version.size == file.bytes().size());
  CHECK(outcome.version.checksum == xxh3_128(file.bytes()));
  CHECK_FALSE(outcome.state);
  CHECK(PacketView(file.bytes()).meta("epoch") == "1");
  CHECK(PacketView(file.bytes()).meta("made_by") == made_by(federation.plan.round));
}

TEST_CASE("the norm of the update is reported") {
  Federation federation;
  const auto outcome = federation.run();
  double squares = 0;
  for (const auto& tensor : federation.mean()) {
    for (const float value : tensor) squares += static_cast<double>(value) * value;
  }
  REQUIRE(outcome.metrics.at(0).first == "update_norm");
  CHECK(outcome.metrics.at(0).second == Approx(std::sqrt(squares)).epsilon(1e-12));
}

TEST_CASE("noise goes on the sum, which is divided by the planned cohort") {
  Federation federation;
  Sensitivity seen;
  federation.privacy = owned<Privacy>(std::make_unique<KnownNoise>(seen), "privacy known");
  federation.plan.denominator = 12;
  federation.plan.sensitivity = {0.5, 1, 12};
  federation.run();
  CHECK(seen.l2 == 0.5);
  CHECK(seen.denominator == 12);
  auto want = federation.base;
  for (std::size_t t = 0; t < want.size(); ++t) {
    for (std::size_t i = 0; i < want[t].size(); ++i) {
      float sum = 0;
      for (const auto& client : federation.clients) {
        const float value = client.values[t][i];
        sum += static_cast<float>(client.weight) *
               (client.factor == 1 ? value : value * static_cast<float>(client.factor));
      }
      want[t][i] += (sum + static_cast<float>(t + 1)) / 12.0f;
    }
  }
  CHECK(read_values(federation.version(1)) == want);
}

TEST_CASE("an empty cohort is noised and divided like any other") {
  Federation federation(0);
  Sensitivity seen;
  federation.privacy = owned<Privacy>(std::make_unique<KnownNoise>(seen), "privacy known");
  federation.plan.denominator = 4;
  federation.run();
  auto want = federation.base;
  for (std::size_t t = 0; t < want.size(); ++t) {
    for (auto& value : want[t]) value += static_cast<float>(t + 1) / 4.0f;
  }
  CHECK(read_values(federation.version(1)) == want);
}

TEST_CASE("noise is never written into a spool file, even when the rule passes its tensors on") {
  Federation federation(1);
  Sensitivity seen;
  federation.privacy = owned<Privacy>(std::make_unique<KnownNoise>(seen), "privacy known");
  federation.aggregator = owned<Aggregator>(std::make_unique<Passes>(), "aggregator passes");
  federation.run();
  CHECK(read_values(federation.spool(0)) == federation.clients[0].values);
  CHECK(read_values(federation.version(1))[0][0] ==
        federation.base[0][0] + (federation.clients[0].values[0][0] + 1.0f));
}

TEST_CASE("what a rule without the Additive trait gives is not divided") {
  Federation federation(1);
  federation.aggregator = owned<Aggregator>(std::make_unique<Passes>(), "aggregator passes");
  federation.plan.additive = false;
  federation.plan.denominator = 7;
  federation.run();
  CHECK(read_values(federation.version(1)) == plus(federation.base, federation.clients[0].values));
}

TEST_CASE("an optimiser's state begins at zero and goes on from the file of the version before") {
  Federation federation;
  federation.optimizer = owned<ServerOptimizer>(std::make_unique<Momentum>(0.5f), "server_optimizer momentum");
  auto want = federation.base, velocity = federation.base;
  for (auto& tensor : velocity) std::fill(tensor.begin(), tensor.end(), 0.0f);
  for (Epoch epoch = 0; epoch < 3; ++epoch) {
    federation.plan.round.base = epoch;
    federation.plan.round.round = epoch + 1;
    for (auto& client : federation.clients) client.values = random_values(federation.layout, 77 + epoch);
    const auto outcome = federation.run();
    const auto mean = federation.mean();
    for (std::size_t t = 0; t < want.size(); ++t) {
      for (std::size_t i = 0; i < want[t].size(); ++i)
        want[t][i] += velocity[t][i] = 0.5f * velocity[t][i] + mean[t][i];
    }
    CHECK(read_values(federation.version(epoch + 1)) == want);
    CHECK(read_values(federation.state(epoch + 1), "optimizer") == velocity);
    REQUIRE(outcome.state);
    CHECK(outcome.state->checksum == xxh3_128(MappedFile(federation.state(epoch + 1)).bytes()));
  }
}

TEST_CASE("a rule that works in slices gives the same bits as one that takes whole tensors") {
  for (const bool coded : {false, true}) {
    Federation whole, sliced;
    const Halves halves;
    if (coded) whole.codecs = sliced.codecs = CodecChain({&halves});
    sliced.aggregator = owned<Aggregator>(std::make_unique<PutsBySlices>(), "aggregator slices");
    whole.run();
    sliced.run();
    CHECK(read_values(sliced.version(1)) == read_values(whole.version(1)));
    CHECK(read_values(whole.version(1)) == plus(whole.base, whole.mean()));
  }
}

TEST_CASE("a survey sees every group before the first is reduced, and the rule's metrics are passed on") {
  Federation federation;
  std::vector<std::string> calls;
  federation.aggregator = owned<Aggregator>(std::make_unique<Surveyor>(calls), "aggregator surveyor");
  const auto outcome = federation.run();
  CHECK(calls == std::vector<std::string>{"begin 1", "survey e", "survey d", "survey b", "survey c", "reduce e",
                                          "reduce d", "reduce b", "reduce c"});
  CHECK(outcome.metrics.back() == std::pair<std::string, double>{"called", 9});
}

TEST_CASE("a client's value is what it was sent plus its change") {
  Federation federation;
  const auto want = plus(federation.base, federation.clients[2].values)[1];
  federation.aggregator = acts([&](const Updates& updates, Results&) {
    if (updates.tensor(0).name != "b") return;
    const auto value = updates.value(2, 0);
    CHECK(std::vector<float>(value.const_data_ptr<float>(), value.const_data_ptr<float>() + value.numel()) == want);
  });
  federation.run();
}

TEST_CASE("an aggregate that is not finite is refused by name, and nothing is left behind") {
  Federation federation;
  federation.clients[2].values[1][4] = std::numeric_limits<float>::quiet_NaN();
  CHECK(contains(message_of(federation),
                 "aggregator sum failed in reduce, round 1, tensor b: the aggregate of b is not finite"));
  CHECK(names_in(federation.folder.path()) == std::set<std::string>{"version-0", "spool-0", "spool-1", "spool-2"});
}

TEST_CASE("a step that is not finite is refused by name") {
  Federation federation;
  federation.optimizer = owned<ServerOptimizer>(std::make_unique<NotFinite>(), "server_optimizer wild");
  CHECK(contains(message_of(federation),
                 "server_optimizer wild failed in step, round 1, tensor b: it made b not finite"));
  CHECK_FALSE(std::filesystem::exists(federation.version(1)));
}

TEST_CASE("a rule that leaves a member out, or puts what does not fit, is refused by name") {
  Federation federation;
  class Forgets final : public Sum {
   public:
    void reduce(const Updates& updates, Results& results) override {
      if (updates.tensor(0).name != "b") Sum::reduce(updates, results);
    }
  };
  federation.aggregator = owned<Aggregator>(std::make_unique<Forgets>(), "aggregator forgets");
  CHECK(contains(message_of(federation), "put nothing for b"));
  federation.aggregator = acts([](const Updates&, Results& results) { results.put(0, at::zeros({2, 9})); });
  CHECK(contains(message_of(federation), "what it put for e is not fp32 of its shape"));
  federation.aggregator = acts([](const Updates&, Results& results) { results.put(0, at::Tensor()); });
  CHECK(contains(message_of(federation), "what it put for e is not fp32 of its shape"));
  federation.aggregator =
      acts([](const Updates& u, Results& results) { results.put_slice(0, u.tensor(0).elements(), at::zeros({1})); });
  CHECK(contains(message_of(federation), "put 1 elements at 201703 into e"));
  federation.aggregator = acts([](const Updates&, Results& results) { results.put_slice(0, -1, at::zeros({1})); });
  CHECK(contains(message_of(federation), "put 1 elements at -1 into e"));
  CHECK_FALSE(std::filesystem::exists(federation.version(1)));
}

TEST_CASE("a plugin's failure names the component, the round and the tensor") {
  Federation federation;
  federation.plan.round.round = 9;
  federation.aggregator = acts([](const Updates& updates, Results&) {
    if (updates.tensor(0).name == "d") throw std::runtime_error("no idea");
  });
  const auto message = message_of(federation);
  for (const auto* part : {"aggregator odd", "round 9", "tensor d", "no idea"}) {
    CAPTURE(message, part);
    CHECK(contains(message, std::string_view(part)));
  }
}

TEST_CASE("clients out of node order, and uploads of another layout, are refused") {
  Federation federation;
  federation.run();
  const auto fold_them = [&](std::vector<FoldClient> clients) {
    fold::fold(federation.plan, clients,
               {federation.aggregator, federation.optimizer, federation.privacy, federation.codecs, federation.downlink,
                federation.noise},
               {federation.state(0), federation.state(1), federation.log(1), Durability::Process, {}});
  };
  FoldClient first, second;
  first.who.node = 2;
  second.who.node = 1;
  first.spool = second.spool = federation.spool(0);
  CHECK_THROWS_WITH(fold_them({first, second}), "fold: clients are not in node order");
  auto other = federation.layout;
  other.tensors[1].shape = {16};
  write_upload(federation.spool(0), other, random_values(other, 3));
  CHECK_THROWS_WITH(fold_them({first}), Catch::Contains("'b' has shape [16] where [17] belongs"));
}

TEST_CASE("a fold killed before the release leaves no version, and one done again gives the same bits") {
  Federation federation;
  federation.optimizer = owned<ServerOptimizer>(std::make_unique<Momentum>(0.5f), "server_optimizer momentum");
  federation.before_release = [] { raise(SIGKILL); };
  const auto child = fork();
  if (child == 0) {
    federation.run();
    _exit(0);  // not reached
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK((WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL));
  CHECK_FALSE(std::filesystem::exists(federation.version(1)));
  CHECK_FALSE(std::filesystem::exists(federation.state(1)));
  federation.before_release = nullptr;
  federation.run();
  CHECK(read_values(federation.version(1)) == plus(federation.base, federation.mean()));
  CHECK(names_in(federation.folder.path()).contains("version-1.tmp") == false);
}

TEST_CASE("the version gets its name last: after the components' state and the optimiser's") {
  Federation federation;
  federation.optimizer = owned<ServerOptimizer>(std::make_unique<Momentum>(0.5f), "server_optimizer momentum");
  bool called = false;
  federation.before_release = [&] {
    called = true;
    CHECK_FALSE(std::filesystem::exists(federation.version(1)));
  };
  federation.run();
  CHECK(called);
  CHECK(std::filesystem::exists(federation.state(1)));
}

TEST_CASE("a rule that puts one tensor for two members, or keeps it, is divided once each") {
  Federation federation;
  at::Tensor kept;
  class Shares final : public Sum {
   public:
    explicit Shares(at::Tensor& keeps) : keeps_(keeps) {}
    void reduce(const Updates& updates, Results& results) override {
      keeps_ = at::ones({64});
      for (std::size_t member = 0; member < updates.group().members.size(); ++member) results.put(member, keeps_);
    }

   private:
    at::Tensor& keeps_;
  };
  federation.layout.tensors = {{"a", DType::f32, {64}}, {"b", DType::f32, {64}}};
  federation.layout.groups = {{"pair", {0, 1}}};
  federation.share_everything();
  federation.base = random_values(federation.layout, 1);
  for (auto& client : federation.clients) client.values = random_values(federation.layout, 2);
  federation.plan.denominator = 4;
  federation.aggregator = owned<Aggregator>(std::make_unique<Shares>(kept), "aggregator shares");
  federation.run();
  auto want = federation.base;
  for (auto& tensor : want) {
    for (auto& value : tensor) value += 0.25f;
  }
  CHECK(read_values(federation.version(1)) == want);
  CHECK(kept.equal(at::ones({64})));
}
