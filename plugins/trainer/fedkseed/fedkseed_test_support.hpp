// What the tests of fedkseed train: two parameters in a bowl, and the part of a host's worker that matters to them.
#pragma once
#include <memory>
#include <span>
#include <vector>

#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <ATen/TensorOperators.h>
#include <hansa/testing/bare_model.hpp>
#include <hansa/testing/fake_updates.hpp>

#include "aggregator.hpp"
#include "trainer.hpp"

namespace hansa::fedkseed::tests {

// Two parameters as the adapter `full` would hold them; the first is stored across its rows. They start at the base.
class Whole : public Stateless<Adapter> {
 public:
  Whole() {
    auto w = at::arange(at::Scalar(91), at::kFloat).view({13, 7}).t().div(91).sub(0.5);
    tensors = {w, at::full({5}, 0.25, at::kFloat)};
  }
  Layout layout(std::span<const Module>, double) const override {
    return {{{"w.weight", DType::f32, {7, 13}}, {"w.bias", DType::f32, {5}}}, {{"", {0}}, {"", {1}}}};
  }
  void create(const Model&, std::span<const Module>, double, std::uint64_t) override {}
  at::Tensor parameter(Index i) override { return tensors.at(i); }
  std::vector<Injection> injections() override { return {{"w", Replace{tensors[0], tensors[1]}}}; }
  void export_to(const Model&, std::span<const Module>, const std::string&,
                 const std::filesystem::path&) const override {}
  bool recognises(const std::filesystem::path&) const override { return false; }
  void import_from(const std::filesystem::path&, const Model&, std::span<const Module>) override {}
  std::vector<at::Tensor> tensors;
};

class Bowl : public testing::BareModel {  // the sum over tokens of |w - centre|^2 / 2
 public:
  Bowl(const Whole& adapter, double centre) : adapter_(adapter), centre_(centre) {}
  at::Tensor loss(const Batch& batch) override {
    auto total = at::zeros({}, at::kFloat);
    for (const auto& tensor : adapter_.tensors) {
      const auto error = tensor - centre_;
      total = total + (error * error).sum() * (factor * 0.5 * static_cast<double>(batch.counted));
    }
    return total;
  }
  double factor = 1;

 private:
  const Whole& adapter_;
  double centre_;
};
class Tokens : public Stateless<DataSource> {
 public:
  void open(const std::filesystem::path&, const Tokenizer*, std::int64_t) override {}
  std::uint64_t examples() const override { return 8; }
  void shuffle(std::uint64_t) override {}
  void rewind() override {}
  std::optional<Batch> next(std::int64_t) override {
    if (ends) return std::nullopt;
    return Batch{.counted = 3, .documents = 1};
  }
  bool ends = false;
};

// The part of a host's worker that matters here: parameters stand as created, what is new of the log is handed over, and
// derive() follows.
struct Node {
  explicit Node(Params params, double centre = 0) : model(adapter, centre), trainer(params, host) {
    for (const auto& tensor : adapter.tensors) created.push_back(tensor.clone());
  }
  void load(std::span<const Download> log) {
    for (std::size_t i = 0; i < created.size(); ++i) adapter.tensors[i].copy_(created[i]);
    bool anew = received == 0;
    for (const auto& entry : log) {
      if (entry.epoch <= received) continue;
      auto download = entry;
      download.anew = anew || entry.anew;
      trainer.receive(model, adapter, download);
      anew = false;
      received = entry.epoch;
    }
    trainer.derive(model, adapter);
  }
  testing::QuietHost host;
  Whole adapter;
  std::vector<at::Tensor> created;
  Bowl model;
  FedKSeed trainer;
  Epoch received = 0;
};

inline TrainContext context_for(std::uint64_t seed, std::int64_t candidates, std::size_t tensors = 2) {
  TrainContext context;
  context.seed = seed;
  context.exchange.roles.assign(tensors, Role::Derived);
  context.exchange.up = {seeds::up_channel()};
  context.exchange.down = {seeds::down_channel(candidates)};
  return context;
}

inline Download entry_of(testing::FakeResults& results, Epoch epoch) {
  return {"accumulators", epoch, false, {{"accumulators", results.appended("accumulators", "accumulators")}}};
}

inline bool same(const Whole& a, const Whole& b) {
  return at::equal(a.tensors[0], b.tensors[0]) && at::equal(a.tensors[1], b.tensors[1]);
}

inline constexpr Params kSmall{.seeds = 64, .steps = 10, .learning_rate = 2e-3, .epsilon = 1e-3};

// One round of all nodes; the entry that it adds to the log.
inline Download play(std::vector<std::unique_ptr<Node>>& nodes, Pool& pool, std::span<const Download> log, Epoch epoch,
                     std::int64_t candidates) {
  pool.begin({});
  Tokens data;
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    auto& node = *nodes[i];
    node.load(log);
    node.trainer.train(node.model, node.adapter, data, context_for(100 * epoch + i, candidates));
    pool.collect({.node = i, .weight = 1.0 + static_cast<double>(i)}, "seeds", node.trainer.outgoing("seeds"));
  }
  testing::FakeResults results;
  pool.finish(results);
  return entry_of(results, epoch);
}

inline std::vector<std::unique_ptr<Node>> some_nodes(const Params& params) {
  std::vector<std::unique_ptr<Node>> nodes;
  for (double centre : {1.0, 0.8, 1.1}) nodes.push_back(std::make_unique<Node>(params, centre));
  return nodes;
}
}  // namespace hansa::fedkseed::tests
