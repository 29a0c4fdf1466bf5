#include "node/worker.hpp"

#include <ATen/core/grad_mode.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <hf/tokenizer.hpp>

#include "base/clock.hpp"
#include "base/ids.hpp"
#include "base/rng.hpp"
#include "fold/fold.hpp"
#include "tensor/bridge.hpp"
#include "tensor/secure_rng.hpp"

namespace hansa::node {
namespace {

DType compute_type(const config::RunSpec& spec) { return spec.model_host.compute == "bf16" ? DType::bf16 : DType::f32; }

std::filesystem::path pending_of(const Silo& silo, const std::string& token) {
  return silo.state / fmt::format("pending-{:016x}", xxh3_64(token));
}
std::filesystem::path current_of(const Silo& silo) { return silo.state / "state"; }

// Version tensors, mapped.
struct OpenVersion {
  OpenVersion(const std::filesystem::path& path, const Layout& layout)
      : file(path), view(file.bytes()), channel(view.find(kAdapterChannel)) {
    if (!channel)
      throw Error(fmt::format("{} is no model version: it holds no channel '{}'", path.string(), kAdapterChannel));
    if (auto why = difference(*channel, layout))
      throw Error(fmt::format("{} does not fit the adapter: {}", path.string(), *why));
  }
  at::Tensor tensor(std::size_t index) const { return view_as_tensor(view, channel->entries[index].code); }
  MappedFile file;
  PacketView view;
  const PacketChannel* channel;
};

}  // namespace

Worker::Worker(const config::RunSpec& spec, const StrategyRegistry& registry, const HostServices& services)
    : spec_(spec), noise_(std::make_unique<SecureNoise>()) {
  if (spec.train.threads > 0) at::set_num_threads(static_cast<int>(spec.train.threads));
  using pipeline::make;
  model_ = make<Model>(spec.model, registry, services);
  adapter_ = make<Adapter>(spec.adapter, registry, services);
  trainer_ = make<Trainer>(spec.trainer, registry, services);
  data_ = make<DataSource>(spec.data, registry, services);
  heldout_ = make<DataSource>(spec.data, registry, services);
  if (spec.evaluator.component) evaluator_ = make<Evaluator>(spec.evaluator, registry, services);
  if (spec.privacy.component) privacy_ = make<Privacy>(spec.privacy, registry, services);
  codecs_ = pipeline::make_codecs(spec, registry, services);

  const auto& path = spec.model_host.path;
  const auto seed = static_cast<std::uint64_t>(spec.run.seed);
  guard(model_, {.doing = "open"}, [&](Model& model) {
    modules_ = model.modules(path);
    if (spec.model_host.initialise)
      model.initialise(path, at::kCPU, compute_type(spec), derive_seed(seed, "model"));
    else
      model.open(path, at::kCPU, compute_type(spec));
  });
  guard(adapter_, {.doing = "create"}, [&](Adapter& adapter) {
    layout_ = adapter.layout(modules_);
    adapter.create(*model_, modules_, derive_seed(seed, "adapter"));
  });
  fresh_.save("trainer", *trainer_);
  if (hf::has_tokenizer(path)) tokenizer_ = std::make_unique<hf::HfTokenizer>(path);
  enable_adapter(true);
}

Worker::~Worker() = default;

Layout Worker::layout(const config::RunSpec& spec, const StrategyRegistry& registry, const HostServices& services) {
  const auto model = pipeline::make<Model>(spec.model, registry, services);
  const auto adapter = pipeline::make<Adapter>(spec.adapter, registry, services);
  const auto modules = guard(model, {.doing = "modules"}, [&](Model& m) { return m.modules(spec.model_host.path); });
  return guard(adapter, {.doing = "layout"}, [&](Adapter& a) { return a.layout(modules); });
}

void Worker::enable_adapter(bool enabled) {
  const auto injections = enabled ? adapter_->injections() : std::vector<Injection>{};
  guard(model_, {.doing = "inject"}, [&](Model& model) { model.inject(injections); });
}

void Worker::load(const std::filesystem::path& version) {
  const at::NoGradGuard no_grad;
  const OpenVersion open(version, layout_);
  for (Index i = 0; i < layout_.tensors.size(); ++i) adapter_->parameter(i).copy_(open.tensor(i));
}

PacketContents Worker::contents() const { return fold::version_contents(layout_, 0, "a node"); }

void Worker::save(const std::filesystem::path& version, Durability durability) const {
  const at::NoGradGuard no_grad;
  fold::PacketFileWriter file(version, contents(), durability);
  for (Index i = 0; i < layout_.tensors.size(); ++i) {
    const auto tensor = adapter_->parameter(i).detach().contiguous();
    file.put(file.plan().contents().channels[0].entries[i].code, 0, bytes_of(tensor));
  }
  file.finish();
}

fold::PacketFile Worker::write_initial(const std::filesystem::path& version, Durability durability) {
  save(version, durability);
  const MappedFile file(version);
  return {xxh3_128(file.bytes()), file.bytes().size()};
}

// ---- training

Trained Worker::train(const Silo& silo, const std::filesystem::path& version, const pipeline::WorkOrder& order,
                      const std::string& token) {
  const SteadyClock clock;
  const double began = clock.now();
  load(version);
  begin_state(silo);
  const auto node = node_id(silo.name);
  const auto seed = static_cast<std::uint64_t>(spec_.run.seed);
  const auto round = order.plan.round;
  auto result =
      take_turn(silo, {order.plan, order.exchange, node, order.rounds, pipeline::training_seed(seed, round, node)});

  const double trained = clock.now();
  std::vector<at::Tensor> deltas;
  {
    const at::NoGradGuard no_grad;
    const OpenVersion open(version, layout_);
    for (Index i = 0; i < layout_.tensors.size(); ++i)
      deltas.push_back(adapter_->parameter(i).detach().sub(open.tensor(i)));
  }
  auto update = pipeline::encode_update(order, std::move(deltas), {codecs_.chain, privacy_, *noise_},
                                        {pipeline::common_seed(seed, round), pipeline::own_seed(seed, round, node)});
  keep_pending(silo, token);
  return {std::move(update), std::move(result), trained - began, clock.now() - trained};
}

void Worker::train_alone(const Silo& silo, const std::filesystem::path& version, Round rounds) {
  load(version);
  const auto node = node_id(silo.name);
  for (Round round = 1; round <= rounds; ++round) {
    TrainContext context;
    context.plan.round = round;
    context.plan.population = context.plan.expected_cohort = 1;
    context.exchange.roles.assign(layout_.tensors.size(), Role::Shared);
    context.node = node;
    context.rounds = rounds;
    context.seed = pipeline::training_seed(static_cast<std::uint64_t>(spec_.run.seed), round, node);
    take_turn(silo, context);
  }
}

TrainResult Worker::take_turn(const Silo& silo, const TrainContext& context) {
  const CallPlace place{.doing = "train", .round = context.plan.round, .node = context.node};
  guard(data_, {.doing = "open", .round = context.plan.round, .node = context.node}, [&](DataSource& data) {
    data.open(silo.data, tokenizer_.get(), model_->max_length());
    data.shuffle(context.seed);
  });
  return guard(trainer_, place, [&](Trainer& trainer) { return trainer.train(*model_, *adapter_, *data_, context); });
}

// What a stateful trainer keeps between rounds belongs to one silo, and moves on only when the coordinator applied the round.
// A silo without any begins as the trainer was created: a simulation's worker may have been in another silo before.
void Worker::begin_state(const Silo& silo) {
  if (trainer_->state_version() == 0) return;
  if (std::filesystem::exists(current_of(silo)))
    fold::ComponentStates::read(current_of(silo)).load("trainer", *trainer_);
  else
    fresh_.load("trainer", *trainer_);
}

void Worker::keep_pending(const Silo& silo, const std::string& token) {
  if (trainer_->state_version() == 0) return;
  std::filesystem::create_directories(silo.state);
  fold::ComponentStates states;
  states.save("trainer", *trainer_);
  states.write(pending_of(silo, token), Durability::Process);
}

void Worker::settled(const Silo& silo, const std::string& token, bool applied) {
  const auto pending = pending_of(silo, token);
  if (!std::filesystem::exists(pending)) return;  // settled before, or nothing was kept
  if (applied)
    rename_into_place(pending, current_of(silo), Durability::Process);
  else
    std::filesystem::remove(pending);
}

// ---- looking

Metrics Worker::evaluate(const std::filesystem::path& heldout) {
  if (!evaluator_) throw Error("the pipeline names no evaluator");
  guard(heldout_, {.doing = "open"}, [&](DataSource& data) {
    data.open(heldout, tokenizer_.get(), model_->max_length());
    data.rewind();
  });
  const at::NoGradGuard no_grad;
  return guard(evaluator_, {.doing = "evaluate"},
               [&](Evaluator& evaluator) { return evaluator.evaluate(*model_, *heldout_); });
}

Metrics Worker::evaluate_base(const std::filesystem::path& heldout) {
  enable_adapter(false);
  auto metrics = evaluate(heldout);
  enable_adapter(true);
  return metrics;
}

void Worker::export_adapter(const std::filesystem::path& directory) {
  guard(adapter_, {.doing = "export"},
        [&](Adapter& adapter) { adapter.export_to(*model_, modules_, spec_.model_host.path.string(), directory); });
}

}  // namespace hansa::node
