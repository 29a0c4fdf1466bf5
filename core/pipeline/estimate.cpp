#include "pipeline/estimate.hpp"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <set>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <hansa/layouts.hpp>
#include <quantised/held_bytes.hpp>

#include "pipeline/exchange.hpp"
#include "pipeline/planned_sizes.hpp"

namespace hansa::pipeline {
namespace {

constexpr std::uint64_t kKiB = 1 << 10, kMiB = 1 << 20;
constexpr std::uint64_t kChunksInFlight = 2;  // of the wire, 1 MiB each, per client that is sending
constexpr std::uint64_t kTrainerCopies = 4;   // value, gradient and two moments of an adaptive optimiser
constexpr std::uint64_t kIndexInMemory = 8;   // a parsed index against its bytes
constexpr std::uint64_t kCoordinatorAtWork = 32 * kMiB,
                        kNodeAtWork = 80 * kMiB;    // threads, allocator, LibTorch's kernels
constexpr std::uint64_t kRecordsOfRun = 64 * kKiB;  // config, plugins, keys, report, plot
constexpr std::uint64_t kRecordsOfNode = 8 * kKiB;  // its lines in config and journal, its log
constexpr std::uint64_t kRecordsOfRound = 2 * kKiB, kRecordsOfUpload = 2 * kKiB;  // journal, events, metrics
constexpr std::uint64_t kEntryOfState = kKiB;  // of one tensor that a node keeps: name, index, alignment

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

// What a component would save now; it may come to keep more.
class StateSize final : public StateWriter {
 public:
  void put(std::string_view, const at::Tensor& value) override { bytes_ += value.nbytes() + kEntryOfState; }
  void put(std::string_view, std::string_view bytes) override { bytes_ += bytes.size() + kEntryOfState; }
  static std::uint64_t of(const Component& component) {
    if (component.state_version() == 0) return 0;
    StateSize size;
    component.save(size);
    return size.bytes_;
  }

 private:
  std::uint64_t bytes_ = 0;
};

std::uint64_t entries_of(const Layout& layout) {  // as a node keeps them
  return dense_bytes(layout) + layout.tensors.size() * kEntryOfState;
}

// Everybody, or as many as independent draws give but once in thousands of rounds.
std::uint64_t most_cohort(std::uint64_t population, double expected, double rate) {
  const auto n = static_cast<double>(population);
  const double spread = rate < 1 ? 4 * std::sqrt(n * rate * (1 - rate)) : 0;
  return static_cast<std::uint64_t>(std::ceil(std::clamp(expected + spread, 1.0, std::max(n, 1.0))));
}

// What an export copies beside weights: the tokenizer and its kin.
std::uint64_t small_files_of(const std::filesystem::path& checkpoint) {
  std::uint64_t sum = 0;
  std::error_code unreadable;
  for (const auto& entry : std::filesystem::directory_iterator(checkpoint, unreadable)) {
    const auto kind = entry.path().extension();
    if (kind == ".json" || kind == ".txt" || kind == ".jinja" || entry.path().filename() == "tokenizer.model")
      sum += entry.is_regular_file(unreadable) ? entry.file_size(unreadable) : 0;
  }
  return sum;
}

// One view of the run, in two rounds: rules may train one half in turn with the other.
struct ViewPlans {
  View view;
  std::vector<Exchange> rounds;
  template <class Size>
  std::uint64_t most(Size&& size) const {
    std::uint64_t most = 0;
    for (const auto& exchange : rounds) most = std::max<std::uint64_t>(most, size(exchange));
    return most;
  }
};

class Estimator {
 public:
  Estimator(const config::RunSpec& spec, const Shape& shape, const Stages& stages)
      : spec_(spec), shape_(shape), stages_(stages) {
    plan_.population = spec.nodes.size();
    plan_.expected_cohort = guard(stages.selector, {.doing = "expected_cohort"},
                                  [&](Selector& s) { return s.expected_cohort(plan_.population); });
    const double rate = guard(stages.selector, {.doing = "sampling_rate"},
                              [&](Selector& s) { return s.sampling_rate(plan_.population); });
    clients_ = most_cohort(plan_.population, plan_.expected_cohort, rate);
    for (auto& view : views_of(stages, shape.layouts)) {
      auto& plans = views_.emplace_back(ViewPlans{std::move(view), {}});
      NodeFacts node;
      node.rank = plans.view.rank;
      for (plan_.round = 1; plan_.round <= 2; ++plan_.round)
        plans.rounds.push_back(exchange_for(stages, plans.view.trainable, plan_, node));
    }
    for (std::size_t i = 0; i < shape.modules.size(); ++i)
      linear_.push_back(shape.modules[i].kind == Module::Kind::Linear);
  }

  CostEstimate estimate() const {
    CostEstimate cost;
    describe(cost);
    traffic(cost);
    cost.coordinator_memory = coordinator_memory();
    cost.first_version_memory = opened_base() + most_layout() + kNodeAtWork;
    cost.coordinator_disk = coordinator_disk();
    for (const auto& view : views_) {
      cost.node_memory = std::max(cost.node_memory, node_memory(view));
      cost.node_disk = std::max(cost.node_disk, held_by_node(view) + kept_by_node(view));
    }
    whole_run(cost);
    remarks(cost);
    return cost;
  }

 private:
  void describe(CostEstimate& cost) const {
    cost.tensors = rows_of(shape_.trainable);
    cost.tensor_count = shape_.trainable.tensors.size();
    cost.group_count = shape_.trainable.groups.size();
    for (const auto& row : cost.tensors) cost.parameters += row.elements;
    cost.base_parameters = parameters_of(shape_.modules);
    cost.population = plan_.population;
    cost.cohort = plan_.expected_cohort;
    cost.most_cohort = clients_;
  }

  // At the pipeline's own rank.
  void traffic(CostEstimate& cost) const {
    const auto& own = views_.front();
    for (std::size_t count = 0; count <= stages_.codec_instances.stages.size(); ++count) {
      const auto chain = stages_.codec_instances.first(count);
      const auto size = [&](Size which) {
        return own.most([&](const auto& e) { return upload_bytes(e, chain, which); });
      };
      cost.up.push_back({count == 0 ? "delta" : spec_.codecs.at(count - 1).use, size(Size::Typical), size(Size::Most)});
    }
    const auto entry = own.most(log_entry_bytes);
    const auto part = part_of_version(own, Size::Typical);
    cost.down_typical = (part > 0 ? part : version(own, Size::Typical)) + entry;
    cost.down_most = version(own, Size::Most) + entry;
  }

  std::uint64_t version(const ViewPlans& view, Size size) const {  // as nodes fetch it
    return view.most([&](const auto& e) { return version_bytes(e, stages_.downlink, size); });
  }
  std::uint64_t part_of_version(const ViewPlans& view, Size size) const {
    return view.most([&](const auto& e) { return part_bytes(e, stages_.downlink, size); });
  }
  std::uint64_t most_upload(const ViewPlans& view) const {
    return view.most([&](const auto& e) { return upload_bytes(e, stages_.codecs, Size::Most); });
  }
  std::uint64_t most_layout() const {
    std::uint64_t most = 0;
    for (const auto& [rank, layout] : shape_.layouts) most = std::max(most, dense_bytes(layout));
    return most;
  }

  // The base as opened. One with random weights has no file to read them from again (Model::base), so it keeps them in
  // fp32, unless it has to be small.
  std::uint64_t opened_base() const {
    const auto& model = spec_.model_host;
    const auto compute = model.compute == "bf16" ? DType::bf16 : DType::f32;
    const auto held = quantised::held_bytes(shape_.modules, compute, model.base_dtype, linear_);
    const bool twice = model.initialise && model.base_dtype == BaseDtype::Compute && compute != DType::f32;
    if (twice) return held + quantised::held_bytes(shape_.modules, DType::f32, BaseDtype::Compute, linear_);
    // Random weights are made in fp32, one after the other: the largest may be one that is not quantised.
    if (!model.initialise || compute == DType::f32) return held;
    return held + largest_in_fp32([](std::size_t) { return true; }) -
           largest_in_fp32([&](std::size_t at) { return linear_[at]; });
  }
  template <class Of>
  std::uint64_t largest_in_fp32(Of of) const {
    std::int64_t numbers = 0;
    for (std::size_t at = 0; at < shape_.modules.size(); ++at) {
      const auto& module = shape_.modules[at];
      if (of(at)) numbers = std::max(numbers, module.out * std::max<std::int64_t>(module.in, 1));
    }
    return 4 * static_cast<std::uint64_t>(numbers);
  }

  std::uint64_t coordinator_memory() const {
    std::uint64_t group = 0, step = 0, index = 0;
    for (const auto& [rank, layout] : shape_.layouts)
      for (const auto& one : layout.groups)
        group = std::max(group, guard(stages_.aggregator, {.doing = "workspace"},
                                      [&](Aggregator& a) { return a.workspace(layout, one, clients_); }));
    for (const auto& tensor : shape_.trainable.tensors) {
      auto bytes = 2 * dense_bytes(tensor);  // the parameter and its change
      for (const auto& state : optimiser_state(tensor)) bytes += dense_bytes(state);
      step = std::max(step, bytes);
    }
    for (const auto& view : views_)
      index = std::max(index, view.most([&](const auto& e) { return upload_index_bytes(e, stages_.codecs); }));
    const auto on_the_wire = spec_.simulation ? 0 : kChunksInFlight * kMiB;
    const auto per_client = on_the_wire + kIndexInMemory * index;
    const auto own_model = spec_.evaluation.sets.empty() ? 0 : opened_base() + most_layout() + kNodeAtWork;
    return group + step + clients_ * per_client + own_model + kCoordinatorAtWork;
  }

  std::vector<TensorSpec> optimiser_state(const TensorSpec& tensor) const {
    return guard(stages_.server_optimizer, {.doing = "state"}, [&](ServerOptimizer& o) { return o.state(tensor); });
  }

  // The versions that are kept and the one being written, each with what goes with it, and the uploads of a round. Logs stay
  // until a rule makes one entry of them, which not every rule does.
  std::uint64_t coordinator_disk() const {
    std::uint64_t each = 0, upload = 0;
    for (const auto& view : views_) {
      each += view.most([](const auto& e) { return version_bytes(e, {}, Size::Most); });
      if (!stages_.downlink.empty()) each += version(view, Size::Most);
      each += part_of_version(view, Size::Most);
      upload = std::max(upload, most_upload(view));
    }
    const auto& own = views_.front().rounds.front();
    if (const auto* standing = find_channel(own.down, kAdapterChannel)) {
      std::vector<std::vector<TensorSpec>> state;
      for (const auto& tensor : standing->layout.tensors) state.push_back(optimiser_state(tensor));
      each += state_bytes(standing->layout, state);
    }
    stages_.each_component(
        "save", [&](const std::string&, Component& component) { each += StateSize::of(component) + kEntryOfState; });
    const auto rounds = static_cast<std::uint64_t>(spec_.run.rounds);
    const auto kept = static_cast<std::uint64_t>(std::max<std::int64_t>(spec_.run.keep_versions, 1));
    return (std::min(kept, rounds + 1) + 1) * each + logs(views_.front()) + clients_ * upload + records();
  }

  std::uint64_t logs(const ViewPlans& view) const {  // and a snapshot
    return (static_cast<std::uint64_t>(spec_.run.rounds) + 1) * view.most(log_entry_bytes);
  }

  std::uint64_t records() const {
    const auto rounds = static_cast<std::uint64_t>(spec_.run.rounds);
    const auto every = static_cast<std::uint64_t>(std::max<std::int64_t>(spec_.evaluation.every, 0));
    const auto evaluations = 1 + (every > 0 ? rounds / every + 1 : 0);
    return kRecordsOfRun + plan_.population * (kRecordsOfNode + evaluations * kKiB) +
           rounds * (kRecordsOfRound + clients_ * kRecordsOfUpload);
  }

  std::uint64_t node_memory(const ViewPlans& view) const {
    const auto adapter = dense_bytes(view.view.trainable);
    const auto others = view.most([](const auto& e) {
      std::uint64_t sum = 0;
      for (const auto* channels : {&e.up, &e.down})
        for (const auto& channel : *channels)
          if (channel.name != kAdapterChannel) sum += dense_bytes(channel.layout);
      return sum;
    });
    const auto kept = kept_by_node(view);  // as it is, and the copy that is being written
    return opened_base() + (kTrainerCopies + 1) * adapter + 2 * others + most_upload(view) + kept + kNodeAtWork;
  }

  // One whole version; of parts one for either half, and the one that is coming in.
  std::uint64_t held_by_node(const ViewPlans& view) const {
    return version(view, Size::Most) + 3 * part_of_version(view, Size::Most) + logs(view);
  }

  // Its state, and the next one that waits until the round is applied.
  std::uint64_t kept_by_node(const ViewPlans& view) const {
    const auto one = view.most([&](const auto& e) {
      auto sum =
          entries_of(hansa::part_of(view.view.trainable, e.roles, {Role::Personal})) + StateSize::of(*stages_.trainer);
      for (const auto& channel : e.up) {
        const bool trainers = stages_.trainer->state_version() != 0 && channel.carry == Carry::Mean;
        if (trainers) sum += entries_of(channel.layout);  // of which it keeps its own part
        if (spec_.error_feedback && channel.carry != Carry::Collect) sum += entries_of(channel.layout);
      }
      return sum;
    });
    return 2 * one;
  }

  void whole_run(CostEstimate& cost) const {
    const auto& own = shape_.trainable;
    const auto adapter = entries_of(own) + kEntryOfState;
    cost.run_disk = cost.coordinator_disk + adapter + small_files_of(spec_.model_host.path);
    if (spec_.report.local_only) cost.run_disk += plan_.population * adapter;
    cost.run_memory = cost.coordinator_memory;
    std::set<std::pair<double, std::string>> workers;  // of a simulation: one for each rank and device, used in turn
    for (const auto& [rank, layout] : shape_.layouts) workers.emplace(rank, "");
    for (const auto& node : spec_.nodes) {
      const auto& view = view_of(node.rank);
      cost.run_disk += kept_by_node(view) + (spec_.simulation ? 0 : held_by_node(view));
      workers.emplace(node.rank, node.device);
      if (!spec_.simulation) cost.run_memory += node_memory(view);
    }
    cost.run_processes = spec_.simulation ? 1 : plan_.population + 2;
    if (!spec_.simulation) return;
    for (const auto& [rank, device] : workers) cost.run_memory += node_memory(view_of(rank));
  }

  const ViewPlans& view_of(double rank) const {
    for (const auto& view : views_)
      if (view.view.ranks.contains(rank)) return view;
    return views_.front();
  }

  void remarks(CostEstimate& cost) const {
    cost.remarks = guard(stages_.trainer, {.doing = "remark"}, [&](Trainer& t) { return t.remarks(shape_.trainable); });
    for (auto& remark : cost.remarks) remark.insert(0, "each node: ");
    for (const auto& down : views_.front().rounds.front().down) {
      const bool open = std::any_of(down.layout.tensors.begin(), down.layout.tensors.end(), open_length);
      if (open && down.keep == Keep::Log)
        cost.remarks.push_back(fmt::format(
            "every round adds to the log '{}', on the disk of all and on the way down, as much as {} decides: "
            "not counted",
            down.name, stages_.aggregator.get_deleter().label()));
    }
  }

  const config::RunSpec& spec_;
  const Shape& shape_;
  const Stages& stages_;
  RoundPlan plan_;
  std::uint64_t clients_ = 1;
  std::vector<ViewPlans> views_;
  std::vector<bool> linear_;  // the modules that a quantised base holds small (opening.hpp)
};

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
  return Estimator(spec, shape, stages).estimate();
}

}  // namespace hansa::pipeline
