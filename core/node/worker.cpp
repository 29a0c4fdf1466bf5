#include "node/worker.hpp"

#include <algorithm>
#include <iterator>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <hansa/layouts.hpp>
#include <hansa/silo_facts.hpp>
#include <hf/tokenizer.hpp>

#include "base/clock.hpp"
#include "base/ids.hpp"
#include "base/rng.hpp"
#include "devices/devices.hpp"
#include "fold/fold.hpp"
#include "tensor/bridge.hpp"
#include "tensor/secure_rng.hpp"

namespace hansa::node {
namespace {

Index index_of(const Layout& layout, std::string_view name) {
  for (Index i = 0; i < layout.tensors.size(); ++i) {
    if (layout.tensors[i].name == name) return i;
  }
  throw Error(fmt::format("this adapter has no tensor '{}'", name));
}

Opening opening_of(const config::ModelSection& model, at::Device device) {
  return {.device = device,
          .compute = model.compute == "bf16" ? DType::bf16 : DType::f32,
          .base = model.base_dtype,
          .kernels = model.kernels,
          .recompute = model.recompute};
}

at::Tensor on_cpu(const at::Tensor& tensor) { return tensor.detach().to(at::kCPU).contiguous(); }

std::filesystem::path pending_of(const Silo& silo, const std::string& token) {
  return silo.state / fmt::format("pending-{:016x}", xxh3_64(token));
}
constexpr std::string_view kTrainer = "trainer", kPersonal = "personal", kMemory = "error_feedback";

}  // namespace

Worker::Worker(const config::RunSpec& spec, const StrategyRegistry& registry, const HostServices& services,
               const WorkerOptions& options)
    : spec_(spec), group_(options.group), noise_(std::make_unique<SecureNoise>()) {
  if (spec.train.threads > 0) at::set_num_threads(static_cast<int>(spec.train.threads));
  using pipeline::make;
  model_ = make<Model>(spec.model, registry, services);
  adapter_ = make<Adapter>(spec.adapter, registry, services);
  trainer_ = make<Trainer>(spec.trainer, registry, services);
  data_ = make<DataSource>(spec.data, registry, services);
  heldout_ = make<DataSource>(spec.data, registry, services);
  if (spec.evaluator.component) evaluator_ = make<Evaluator>(spec.evaluator, registry, services);
  if (spec.privacy.component) privacy_ = make<Privacy>(spec.privacy, registry, services);
  codecs_ = pipeline::make_codecs(spec.codecs, registry, services);
  downlink_ = pipeline::make_codecs(spec.downlink, registry, services);

  if (group_ && !trainer_->shares_batches())
    throw Error(fmt::format(
        "trainer '{}' trains in one process: it does not share its batches out, and this node has {}. Start "
        "the node once, or choose another trainer",
        spec.trainer.use, group_->size()));

  const auto& path = spec.model_host.path;
  const auto seed = static_cast<std::uint64_t>(spec.run.seed);
  const auto opening =
      opening_of(spec.model_host, options.device ? *options.device : require_device(spec.model_host.device));
  guard(model_, {.doing = "open"}, [&](Model& model) {
    modules_ = model.modules(path);
    if (spec.model_host.initialise)
      model.initialise(path, opening, derive_seed(seed, "model"));
    else
      model.open(path, opening);
  });
  guard(adapter_, {.doing = "create"}, [&](Adapter& adapter) {
    layout_ = adapter.layout(modules_, options.rank);
    adapter.create(*model_, modules_, options.rank, derive_seed(seed, "adapter"));
  });
  created_.resize(layout_.tensors.size());
  guard(trainer_, {.doing = "save"}, [&](Trainer& trainer) { fresh_.save(std::string(kTrainer), trainer); });
  if (hf::has_tokenizer(path)) {
    auto tokenizer = std::make_unique<hf::HfTokenizer>(path);
    hf::require_ids_within(model_->vocabulary(), *tokenizer, path);
    tokenizer_ = std::move(tokenizer);
  }
  enable_adapter(true);
}

Worker::~Worker() = default;

void Worker::enable_adapter(bool enabled) {
  const auto injections = enabled ? this->injections() : std::vector<Injection>{};
  guard(model_, place("inject"), [&](Model& model) { model.inject(injections); });
}

// ---- versions

at::Tensor Worker::parameter(Index index) const {
  return guard(adapter_, place("parameter", layout_.tensors[index].name),
               [&](Adapter& adapter) { return adapter.parameter(index); });
}

void Worker::load(const fold::Standing& standing, const std::vector<Channel>& down, const Silo* silo,
                  std::optional<Round> round) {
  const at::NoGradGuard no_grad;
  round_ = round;
  node_ = silo ? std::optional(node_id(silo->name)) : std::nullopt;
  if (silo) begin_state(*silo);
  const fold::Held held(standing.packets, downlink_.chain,
                        pipeline::down_seed(static_cast<std::uint64_t>(spec_.run.seed)), place("decode"));
  for (Index i = 0; i < layout_.tensors.size(); ++i) {
    const auto& spec = layout_.tensors[i];
    auto own = parameter(i);
    if (const auto value = held.tensor(kAdapterChannel, spec); value.defined()) {
      own.copy_(value);
      continue;
    }
    if (!created_[i].defined()) created_[i] = own.detach().clone();
    const auto kept = silo ? personal_.find(spec.name, spec.shape) : at::Tensor();
    own.copy_(kept.defined() ? kept : created_[i]);
  }
  receive(held, standing, down);
  guard(trainer_, place("derive"), [&](Trainer& trainer) { trainer.derive(*model_, *adapter_); });
}

// What stands beside the adapter's own channel, and of the logs what is new.
void Worker::receive(const fold::Held& held, const fold::Standing& standing, const std::vector<Channel>& down) {
  const auto receiver_of = [&](const std::string& name) {
    const auto* channel = find_channel(down, name);
    if (!channel) throw Error(fmt::format("a version came with a channel '{}', which the round does not have", name));
    return channel->for_trainer ? Receiver::Trainer : Receiver::Adapter;
  };
  const Epoch newest = standing.log.empty() ? 0 : standing.log.back().epoch;
  if (newest < received_) forget_log();  // an earlier version than the last
  bool changed = false;
  for (const auto& entry : standing.log) {
    if (entry.epoch <= received_) continue;
    const MappedFile file(entry.file);
    const PacketView view(file.bytes());
    for (auto& download : fold::downloads_of(view, entry.epoch)) {
      const auto receiver = receiver_of(download.channel);
      const bool first = begun_.emplace(download.channel, receiver).second;
      download.anew = first || entry.anew;
      hand_over(download, receiver);
    }
    changed = true;
  }
  received_ = newest;
  for (const auto& channel : down) {
    if (channel.keep != Keep::Latest || channel.name == kAdapterChannel) continue;
    hand_over({channel.name, 0, true, held.channel(channel.name)}, receiver_of(channel.name));
    changed = changed || !channel.for_trainer;
  }
  if (changed) enable_adapter(true);
}

void Worker::hand_over(const Download& download, Receiver receiver) {
  const auto where = place("receive", download.channel);
  if (receiver == Receiver::Trainer)
    guard(trainer_, where, [&](Trainer& trainer) { trainer.receive(*model_, *adapter_, download); });
  else
    guard(adapter_, where, [&](Adapter& adapter) { adapter.receive(*model_, download); });
}

void Worker::forget_log() {
  for (const auto& [channel, receiver] : begun_) hand_over({channel, 0, true, {}}, receiver);
  if (!begun_.empty()) enable_adapter(true);
  begun_.clear();
  received_ = 0;
}

void Worker::write_initial(const std::filesystem::path& version, const std::vector<Channel>& down,
                           Durability durability) {
  const at::NoGradGuard no_grad;
  fold::PacketFileWriter file(version, fold::version_contents(down, 0, "a node"), durability);
  for (const auto& channel : file.plan().contents().channels) {
    for (const auto& entry : channel.entries) {
      auto value = at::zeros(entry.code.shape, at::TensorOptions().dtype(scalar_type_of(entry.code.dtype)));
      if (channel.name == kAdapterChannel) value = on_cpu(parameter(index_of(layout_, entry.name)));
      file.put(entry.code, 0, bytes_of(value));
    }
  }
  file.finish();
}

void Worker::save(const std::filesystem::path& to, Durability durability) const {
  const at::NoGradGuard no_grad;
  const std::vector<Channel> all{{std::string(kAdapterChannel), layout_}};
  fold::PacketFileWriter file(to, fold::version_contents(all, 0, "a node"), durability);
  for (Index i = 0; i < layout_.tensors.size(); ++i) {
    const auto tensor = on_cpu(parameter(i));
    file.put(file.plan().contents().channels[0].entries[i].code, 0, bytes_of(tensor));
  }
  file.finish();
}

void Worker::load_saved(const std::filesystem::path& saved) {
  const at::NoGradGuard no_grad;
  forget_log();
  const CodecChain as_it_is;
  const fold::Held held({saved}, as_it_is, 0);
  for (Index i = 0; i < layout_.tensors.size(); ++i) {
    const auto value = held.tensor(kAdapterChannel, layout_.tensors[i]);
    if (!value.defined()) throw Error(fmt::format("{} holds no '{}'", saved.string(), layout_.tensors[i].name));
    parameter(i).copy_(value);
  }
}

// ---- training

Trained Worker::train(const Silo& silo, const fold::Standing& standing, const pipeline::WorkOrder& order,
                      const std::string& token) {
  const SteadyClock clock;
  const double began = clock.now();
  auto result = take_turn_together(silo, standing, order);
  const auto node = node_id(silo.name);
  const auto seed = static_cast<std::uint64_t>(spec_.run.seed);
  const auto round = order.plan.round;

  const double trained = clock.now();
  const fold::Held held(standing.packets, downlink_.chain, pipeline::down_seed(seed), place("decode"));
  pipeline::ErrorFeedback feedback{memory_, spec_.error_feedback ? spec_.error_feedback->decay : 0};
  auto update = pipeline::encode_update(order, changes(held, order.exchange),
                                        {codecs_.chain, privacy_, *noise_, spec_.error_feedback ? &feedback : nullptr,
                                         node, trainer_.get_deleter().label()},
                                        {pipeline::common_seed(seed, round), pipeline::own_seed(seed, round, node)});
  for (std::size_t c = 0; c < order.exchange.up.size(); ++c) {
    if (order.exchange.up[c].carry != Carry::Mean) continue;
    guard(trainer_, place("sent", order.exchange.up[c].name),
          [&](Trainer& trainer) { trainer.sent(order.exchange.up[c].name, update.decoded[c]); });
  }
  keep_pending(silo, order.exchange.roles, token);
  return {std::move(update), std::move(result), trained - began, clock.now() - trained};
}

void Worker::assist(const Silo& silo, const fold::Standing& standing, const pipeline::WorkOrder& order) {
  take_turn_together(silo, standing, order);
}

TrainContext Worker::context_of(const Silo& silo, const pipeline::WorkOrder& order) const {
  const auto node = node_id(silo.name);
  const auto seed = pipeline::training_seed(static_cast<std::uint64_t>(spec_.run.seed), order.plan.round, node);
  return {order.plan, order.exchange, node, order.rounds, seed, group_};
}

TrainResult Worker::take_turn_together(const Silo& silo, const fold::Standing& standing,
                                       const pipeline::WorkOrder& order) {
  if (!group_) {
    load(standing, order.exchange.down, &silo, order.plan.round);
    return take_turn(silo, context_of(silo, order));
  }
  std::string failure;
  try {
    load(standing, order.exchange.down, &silo, order.plan.round);
  } catch (const std::exception&) {
    failure = plain_message();
  }
  group_->agree(failure);
  share_parameters();
  try {
    return take_turn(silo, context_of(silo, order));
  } catch (const peers::OutOfStep&) {
    throw;
  } catch (const std::exception&) {
    if (group_->gave_up()) throw;
    // The others wait for this one's part of something that it will not do.
    throw peers::OutOfStep(fmt::format("process {} of {} failed by itself, and ends with all the others: {}",
                                       group_->rank(), group_->size(), plain_message()));
  }
}

// What is worked out on different machines may differ, such as the sign of a singular vector: the first process's counts.
void Worker::share_parameters() {
  const at::NoGradGuard no_grad;
  for (Index i = 0; i < layout_.tensors.size(); ++i) {
    auto own = parameter(i);
    auto value = own.detach().clone(at::MemoryFormat::Contiguous);
    if (group_->rank() != 0) value.zero_();
    group_->sum(value);
    own.copy_(value);
  }
}

// Of each up channel: what training changed against the model as it was received and decoded.
std::vector<std::vector<at::Tensor>> Worker::changes(const fold::Held& held, const Exchange& exchange) {
  const at::NoGradGuard no_grad;
  std::vector<std::vector<at::Tensor>> all;
  for (const auto& channel : exchange.up) {
    auto& tensors = all.emplace_back();
    if (channel.name != kAdapterChannel) {
      tensors = guard(trainer_, place("outgoing", channel.name),
                      [&](Trainer& trainer) { return trainer.outgoing(channel.name); });
      for (auto& tensor : tensors) tensor = on_cpu(tensor).clone();  // clipped and noised in place
      continue;
    }
    for (const auto& spec : channel.layout.tensors) {
      const auto sent = held.tensor(kAdapterChannel, spec);
      if (!sent.defined()) throw Error(fmt::format("no version held here has '{}'", spec.name));
      tensors.push_back(on_cpu(parameter(index_of(layout_, spec.name))).sub(sent));
    }
  }
  return all;
}

void Worker::train_alone(const Silo& silo, std::span<const Round> taken) {
  {
    const at::NoGradGuard no_grad;
    guard(trainer_, {.doing = "derive"}, [&](Trainer& trainer) { trainer.derive(*model_, *adapter_); });
  }
  const auto node = node_id(silo.name);
  for (const auto round : taken) {
    TrainContext context;
    context.plan.round = round;
    context.plan.population = context.plan.expected_cohort = 1;
    context.exchange.roles.assign(layout_.tensors.size(), Role::Shared);
    context.node = node;
    context.rounds = static_cast<Round>(spec_.run.rounds);
    context.seed = pipeline::training_seed(static_cast<std::uint64_t>(spec_.run.seed), round, node);
    take_turn(silo, context);
  }
}

TrainResult Worker::take_turn(const Silo& silo, const TrainContext& context) {
  round_ = context.plan.round;
  node_ = context.node;
  guard(data_, place("open"), [&](DataSource& data) {
    data.open(silo.data, tokenizer_.get(), model_->max_length());
    data.shuffle(context.seed);
  });
  auto result = guard(trainer_, place("train"),
                      [&](Trainer& trainer) { return trainer.train(*model_, *adapter_, *data_, context); });
  if (const auto* silo_facts = dynamic_cast<const SiloFacts*>(data_.get()))  // what of the silo could not be used
    std::ranges::copy(silo_facts->facts(), std::back_inserter(result.metrics));
  return result;
}

std::filesystem::path Worker::kept_state_of(const Silo& silo) { return silo.state / "state"; }

// What a node keeps between rounds (a stateful trainer's, the personal part, the error memory) belongs to one silo, and moves
// on only when the coordinator applied the round. A silo without any begins as all was created: a simulation's worker may
// have been in another silo before.
void Worker::begin_state(const Silo& silo) {
  personal_.clear();
  memory_.clear();
  const bool kept = std::filesystem::exists(kept_state_of(silo));
  const auto states = kept ? fold::ComponentStates::read(kept_state_of(silo)) : fold::ComponentStates();
  guard(trainer_, place("load"),
        [&](Trainer& trainer) { (kept ? states : fresh_).load(std::string(kTrainer), trainer); });
  if (kept && states.has(kPersonal)) states.load(std::string(kPersonal), personal_);
  if (kept && states.has(kMemory)) states.load(std::string(kMemory), memory_);
}

bool Worker::keeps_state(const std::vector<Role>& roles) const {
  return trainer_->state_version() != 0 || spec_.error_feedback ||
         std::find(roles.begin(), roles.end(), Role::Personal) != roles.end();
}

void Worker::keep_pending(const Silo& silo, const std::vector<Role>& roles, const std::string& token) {
  if (!keeps_state(roles)) return;
  std::filesystem::create_directories(silo.state);
  for (Index i = 0; i < roles.size(); ++i) {
    if (roles[i] == Role::Personal) personal_.set(layout_.tensors[i].name, on_cpu(parameter(i)));
  }
  fold::ComponentStates states;
  guard(trainer_, place("save"), [&](Trainer& trainer) { states.save(std::string(kTrainer), trainer); });
  if (!personal_.all().empty()) states.save(std::string(kPersonal), personal_);
  if (spec_.error_feedback) states.save(std::string(kMemory), memory_);
  states.write(pending_of(silo, token), Durability::Process);
}

void Worker::settled(const Silo& silo, const std::string& token, bool applied) {
  const auto pending = pending_of(silo, token);
  if (!std::filesystem::exists(pending)) return;  // settled before, or nothing was kept
  if (applied)
    rename_into_place(pending, kept_state_of(silo), Durability::Process);
  else
    std::filesystem::remove(pending);
}

// ---- looking

Metrics Worker::evaluate(const std::filesystem::path& heldout) {
  if (!evaluator_) throw Error("the pipeline names no evaluator");
  guard(heldout_, place("open"), [&](DataSource& data) {
    data.open(heldout, tokenizer_.get(), model_->max_length());
    data.rewind();
  });
  const at::NoGradGuard no_grad;
  return guard(evaluator_, place("evaluate"),
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

std::vector<Injection> Worker::injections() {
  return guard(adapter_, place("name its injections"), [](Adapter& adapter) { return adapter.injections(); });
}

}  // namespace hansa::node
