#include "pipeline/estimate.hpp"

#include "pipeline/exchange.hpp"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace hansa::pipeline {
namespace {

constexpr std::uint64_t kChunk = 1 << 20;     // of the wire
constexpr std::uint64_t kChunksInFlight = 2;  // per client that is sending
constexpr std::uint64_t kTrainerCopies = 4;   // value, gradient and two moments of an adaptive optimiser

std::uint64_t dense_bytes(const TensorSpec& spec) {
  return static_cast<std::uint64_t>(std::max<std::int64_t>(spec.elements(), 0)) * size_of(spec.dtype);
}

std::uint64_t dense_bytes(const Layout& layout) {
  std::uint64_t sum = 0;
  for (const auto& tensor : layout.tensors) sum += dense_bytes(tensor);
  return sum;
}

// Numbers between dots become `*`: the layers of a model look alike.
std::string pattern_of(const std::string& name) {
  std::string pattern;
  for (std::size_t at = 0; at <= name.size();) {
    const auto dot = std::min(name.find('.', at), name.size());
    const auto part = name.substr(at, dot - at);
    const bool number =
        !part.empty() && std::all_of(part.begin(), part.end(), [](char c) { return c >= '0' && c <= '9'; });
    pattern += (at ? "." : "") + (number ? std::string("*") : part);
    at = dot + 1;
  }
  return pattern;
}

std::vector<TensorRow> rows_of(const Layout& layout) {
  std::vector<TensorRow> rows;
  for (const auto& tensor : layout.tensors) {
    const auto name = pattern_of(tensor.name);
    const auto type = fmt::format("{} [{}]", name_of(tensor.dtype), fmt::join(tensor.shape, ", "));
    auto row = std::find_if(rows.begin(), rows.end(), [&](const auto& r) { return r.name == name && r.type == type; });
    if (row == rows.end()) row = rows.insert(rows.end(), {name, type, 0, 0, 0});
    row->count += 1;
    row->elements += static_cast<std::uint64_t>(tensor.elements());
    row->bytes += dense_bytes(tensor);
  }
  return rows;
}

// Sum channels pass the codecs; the others travel as they are.
std::vector<StageRow> uplink(const config::RunSpec& spec, const Exchange& exchange, const Codecs& codecs) {
  std::vector<StageRow> rows;
  for (std::size_t stages = 0; stages <= codecs.compressors.size(); ++stages) {
    std::vector<const Compressor*> first;
    for (std::size_t i = 0; i < stages; ++i) first.push_back(codecs.compressors[i].get());
    const CodecChain chain(std::move(first));
    StageRow row{stages == 0 ? "delta" : spec.codecs.at(stages - 1).use};
    for (const auto& channel : exchange.up)
      for (const auto& tensor : channel.layout.tensors) {
        const auto plan = stages == 0 || channel.carry == Carry::Collect
                              ? SizePlan{{}, dense_bytes(tensor), dense_bytes(tensor)}
                              : chain.plan(tensor);
        row.typical += plan.typical_bytes;
        row.most += plan.most_bytes;
      }
    rows.push_back(std::move(row));
  }
  return rows;
}

// A version as a node fetches it; entries of logs whose length is open count nothing.
std::uint64_t down_bytes(const Channel& channel, const CodecChain& downlink) {
  std::uint64_t sum = 0;
  for (const auto& tensor : channel.layout.tensors)
    sum +=
        channel.keep == Keep::Latest && !downlink.empty() ? downlink.plan(tensor).typical_bytes : dense_bytes(tensor);
  return sum;
}

std::uint64_t optimiser_state(const Layout& layout, const ServerOptimizer& optimizer, std::uint64_t& largest) {
  std::uint64_t sum = 0;
  for (const auto& tensor : layout.tensors) {
    std::uint64_t own = 0;
    for (const auto& state : optimizer.state(tensor)) own += dense_bytes(state);
    largest = std::max(largest, own + 2 * dense_bytes(tensor));  // parameter and delta beside it
    sum += own;
  }
  return sum;
}

std::uint64_t parameters_of(const std::vector<Module>& modules) {
  std::uint64_t sum = 0;
  for (const auto& m : modules) {
    if (m.kind == Module::Kind::Attention) continue;  // it holds nothing of its own
    const auto in = static_cast<std::uint64_t>(std::max<std::int64_t>(m.in, 0)),
               out = static_cast<std::uint64_t>(std::max<std::int64_t>(m.out, 0));
    sum += (m.kind == Module::Kind::Norm ? out : in * out) + (m.bias ? out : 0);
  }
  return sum;
}

}  // namespace

Shape shape_of(const config::RunSpec& spec, const StrategyRegistry& registry, const HostServices& services) {
  const auto model = make<Model>(spec.model, registry, services);
  const auto adapter = make<Adapter>(spec.adapter, registry, services);
  Shape shape;
  shape.modules = guard(model, {.doing = "modules"}, [&](Model& m) { return m.modules(spec.model_host.path); });
  const auto at_rank = [&](double rank) {
    return guard(adapter, {.doing = "layout"}, [&](Adapter& a) { return a.layout(shape.modules, rank); });
  };
  shape.trainable = at_rank(0);
  shape.layouts[0] = shape.trainable;
  for (const auto& node : spec.nodes) {
    if (!shape.layouts.contains(node.rank)) shape.layouts[node.rank] = at_rank(node.rank);
  }
  return shape;
}

CostEstimate estimate(const config::RunSpec& spec, const Shape& shape, const Stages& stages) {
  CostEstimate cost;
  const auto& layout = shape.trainable;
  cost.tensors = rows_of(layout);
  cost.tensor_count = layout.tensors.size();
  cost.group_count = layout.groups.size();
  for (const auto& row : cost.tensors) cost.parameters += row.elements;
  cost.base_parameters = parameters_of(shape.modules);

  cost.population = spec.nodes.size();
  RoundPlan plan;
  plan.round = 1;
  plan.population = spec.nodes.size();
  cost.cohort = guard(stages.selector, {.doing = "expected_cohort"},
                      [&](Selector& s) { return s.expected_cohort(plan.population); });
  plan.expected_cohort = cost.cohort;
  const auto clients = static_cast<std::uint64_t>(std::ceil(std::max(1.0, cost.cohort)));

  cost.remarks = guard(stages.trainer, {.doing = "remark"}, [&](Trainer& t) { return t.remarks(layout); });
  const auto exchange = exchange_for(stages, layout, plan, {});
  cost.up = uplink(spec, exchange, stages.codec_instances);
  for (const auto& channel : exchange.down) cost.down += down_bytes(channel, stages.downlink);

  std::uint64_t step = 0, group = 0;
  const auto state = guard(stages.server_optimizer, {.doing = "state"},
                           [&](ServerOptimizer& o) { return optimiser_state(layout, o, step); });
  for (const auto& [rank, at_rank] : shape.layouts) {
    for (const auto& g : at_rank.groups)
      group = std::max(group, guard(stages.aggregator, {.doing = "workspace"},
                                    [&](Aggregator& a) { return a.workspace(at_rank, g, clients); }));
  }
  const auto upload = cost.up.back();
  cost.coordinator_memory = group + step + clients * kChunksInFlight * kChunk;
  const auto version = dense_bytes(layout) + state;
  // The versions that are kept, the one being written, and a round's uploads.
  cost.coordinator_disk = (static_cast<std::uint64_t>(spec.run.keep_versions) + 1) * version + clients * upload.most;
  const auto width = spec.model_host.compute == "bf16" ? 2u : 4u;
  cost.node_memory =
      cost.base_parameters * width + kTrainerCopies * dense_bytes(layout) + dense_bytes(layout) + upload.most;
  cost.node_disk = upload.most;
  return cost;
}

}  // namespace hansa::pipeline
