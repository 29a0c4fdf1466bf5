#include "nn/causal_model.hpp"

#include <algorithm>
#include <new>
#include <set>

#include <ATen/core/grad_mode.h>
#include <ATen/core/Reduction.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/index_put.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/nll_loss.h>
#include <ATen/ops/nonzero.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/zeros.h>
#include <ATen/TensorOperators.h>
#include <c10/util/Exception.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/error.hpp"
#include "hf/json_config.hpp"
#include "hf/tensors.hpp"
#include "nn/layers.hpp"
#include "nn/memory_need.hpp"

namespace hansa::nn {

CausalModel::CausalModel(std::string name, std::vector<std::string> model_types, ReadConfig read_config, Host* host)
    : name_(std::move(name)), model_types_(std::move(model_types)), read_config_(std::move(read_config)), host_(host) {}
CausalModel::~CausalModel() = default;

bool CausalModel::accepts(const std::filesystem::path& checkpoint) const {
  return std::ranges::find(model_types_, hf::model_type_of(checkpoint)) != model_types_.end();
}

std::vector<Module> CausalModel::modules(const std::filesystem::path& checkpoint) const {
  return read_config_(checkpoint)->plan().modules;
}

const DecoderPlan& CausalModel::plan() const {
  if (!decoder_) throw Error(fmt::format("model {}: used before a checkpoint was opened", name_));
  return decoder_->plan();
}
std::int64_t CausalModel::vocabulary() const { return plan().vocabulary; }
std::int64_t CausalModel::max_length() const { return plan().max_length - places_->virtual_tokens(); }

void CausalModel::prepare(const std::filesystem::path& checkpoint, const Opening& opening) {
  const auto& device = opening.device;
  if (!device.is_cpu() && !device.is_cuda() && !device.is_meta())  // meta: shapes without values, for tests
    throw Error(
        fmt::format("model {} computes on the CPU or a CUDA device; '{}' is not supported", name_, device.str()));
  if (opening.compute != DType::f32 && opening.compute != DType::bf16)
    throw Error(fmt::format("model {} computes in f32 or bf16; {} is not supported", name_, name_of(opening.compute)));
  decoder_ = read_config_(checkpoint);
  opening_ = opening;
  // The others read plain weights in the CPU's memory.
  if (opening.base != BaseDtype::Compute || !device.is_cpu()) opening_.kernels = Kernels::Plain;
  workspace_ = std::make_shared<quantised::Workspace>(device);
  compute_ = hf::scalar_type_of(opening.compute);
  places_ = std::make_unique<Places>(decoder_->plan().modules, device);
  decoder_->bind(*places_);
  checkpoint_.reset();
  initial_.clear();
}

std::string CausalModel::stored_name(const std::string& tensor) const {
  auto name = prefixed(tensor);
  if (checkpoint_->find(name)) return name;
  for (const auto& [now, then] : decoder_->plan().older_ends) {
    if (!tensor.ends_with(now)) continue;
    const auto older = prefixed(tensor.substr(0, tensor.size() - now.size()) + then);
    if (checkpoint_->find(older)) return older;
  }
  return name;
}

// A head that the files lack. The same values wherever the checkpoint is opened.
bool CausalModel::starts_fresh(const Module& module) const {
  return std::ranges::find(plan().fresh_where_missing, module.name) != plan().fresh_where_missing.end() &&
         !checkpoint_->find(stored_name(module.name + ".weight")) &&
         !checkpoint_->find(stored_name(module.name + ".bias"));
}

std::string CausalModel::prefixed(const std::string& tensor) const {
  const auto& plan = decoder_->plan();
  if (checkpoint_->find(tensor) || plan.optional_prefix.empty() || !tensor.starts_with(plan.optional_prefix))
    return tensor;
  const auto rest = tensor.substr(plan.optional_prefix.size());
  for (const auto& prefix : plan.other_prefixes)
    if (checkpoint_->find(prefix + rest)) return prefix + rest;
  return rest;
}

const hf::StoredTensor& CausalModel::stored(const Place& place, const std::string& tensor,
                                            const std::vector<std::int64_t>& shape) const {
  const auto name = stored_name(tensor);
  const auto* found = checkpoint_->find(name);
  if (!found)
    throw Error(fmt::format("{}: tensor '{}' is missing; config.json ({}) asks for it",
                            checkpoint_->directory().string(), tensor, name_));
  if (found->shape != shape) {
    const bool table = place.module.kind == Module::Kind::Embedding || place.module.kind == Module::Kind::Head;
    throw Error(fmt::format(
        "{}: tensor '{}' is {}, but config.json makes it {}{}", checkpoint_->directory().string(), name,
        fmt::join(found->shape, " x "), fmt::join(shape, " x "),
        table ? fmt::format("; compare vocab_size (here {}) and the hidden size", decoder_->plan().vocabulary)
              : std::string()));
  }
  return *found;
}

at::Tensor CausalModel::read(const Place& place, const std::string& tensor, const std::vector<std::int64_t>& shape,
                             DType type) const {
  return hf::load_tensor(stored(place, tensor, shape), type);
}

CausalModel::Weights CausalModel::read(const Place& place, DType type) const {
  const auto& module = place.module;
  if (module.kind == Module::Kind::Attention) return {};
  auto shape = weight_shape(module);
  if (starts_fresh(module)) {
    constexpr std::uint64_t kHead = 0x48656164;
    auto generator = make_generator(kHead);
    return {at::empty(shape, at::kFloat)
                .normal_(0, plan().initial_deviation(module), generator)
                .to(hf::scalar_type_of(type)),
            at::zeros({module.out}, hf::scalar_type_of(type))};
  }
  if (module.stored_transposed) std::swap(shape[0], shape[1]);
  auto weight = read(place, module.name + ".weight", shape, type);
  if (module.stored_transposed) weight = weight.t().contiguous();
  return {weight, module.bias ? read(place, module.name + ".bias", {module.out}, type) : at::Tensor()};
}

// For a weight that is made smaller at once: in fp32, in memory that the next one takes again. Memory asked for and given back
// each time would leave holes between what stays.
CausalModel::Weights CausalModel::read_through(at::Tensor& scratch, const Place& place) const {
  const auto& module = place.module;
  auto shape = weight_shape(module);
  auto weight = scratch.narrow(0, 0, module.out * module.in).view(shape);
  if (module.stored_transposed) std::swap(shape[0], shape[1]);
  hf::load_tensor(stored(place, module.name + ".weight", shape), module.stored_transposed ? weight.t() : weight);
  return {weight, module.bias ? read(place, module.name + ".bias", {module.out}, DType::f32) : at::Tensor()};
}

void CausalModel::check_names(const DecoderPlan& plan) const {
  std::set<std::string> known;
  for (const auto& module : plan.modules) {
    if (module.kind == Module::Kind::Attention) continue;
    known.insert(stored_name(module.name + ".weight"));
    if (module.bias) known.insert(stored_name(module.name + ".bias"));
  }
  std::vector<std::string> strange, skipped;
  for (const auto& name : checkpoint_->names()) {
    if (known.contains(name)) continue;
    const bool unused =
        std::ranges::any_of(plan.unused, [&](const std::string& end) { return name.ends_with(end); }) ||
        std::ranges::any_of(plan.unused_parts, [&](const std::string& part) { return name.starts_with(part); });
    (unused ? skipped : strange).push_back(name);
  }
  if (host_ && !skipped.empty())
    host_->log(Host::Level::Info,
               fmt::format("{}: {} tensor(s) skipped that a {} model does not need; the first is '{}'",
                           checkpoint_->directory().string(), skipped.size(), name_, skipped.front()));
  if (strange.empty()) return;
  throw Error(fmt::format("{}: {} tensor(s) have no place in a {} model as config.json describes it; the first is '{}'",
                          checkpoint_->directory().string(), strange.size(), name_, strange.front()));
}

// The linear modules of a quantised base; embedding, norms and heads stay in the compute type.
bool CausalModel::quantises(const Module& module) const {
  return opening_.base != BaseDtype::Compute && may_be_quantised(module);
}

bool CausalModel::may_be_quantised(const Module& module) const {
  const auto& fresh = plan().fresh_where_missing;
  return module.kind == Module::Kind::Linear && std::ranges::find(fresh, module.name) == fresh.end();
}

std::vector<bool> CausalModel::quantisable() const {
  std::vector<bool> list;
  for (const auto& module : plan().modules) list.push_back(may_be_quantised(module));
  return list;
}

// A weight that is not needed beyond this call: it is gone before the next one is read.
void CausalModel::hold(Place& place, Weights weights) const {
  const auto there = [&](const at::Tensor& tensor) {  // the smaller of two types travels
    return tensor.defined() ? tensor.to(compute_).to(opening_.device) : tensor;
  };
  place.bias = there(weights.second);
  if (!quantises(place.module)) {
    place.weight = there(weights.first);
    return;
  }
  try {
    place.stored = quantised::StoredWeight(opening_.base, weights.first, workspace_);
  } catch (const Error& problem) {
    throw Error(fmt::format("module '{}': {}", place.module.name, problem.what()));
  }
}

void CausalModel::open(const std::filesystem::path& checkpoint, const Opening& opening) {
  at::NoGradGuard no_grad;
  prepare(checkpoint, opening);
  checkpoint_ = std::make_unique<hf::Checkpoint>(checkpoint);
  check_names(decoder_->plan());
  require_room(checkpoint);
  std::int64_t largest = 0;
  for (const auto& place : places_->all())
    if (quantises(place.module)) largest = std::max(largest, place.module.out * place.module.in);
  auto scratch = at::empty({largest}, at::kFloat);
  for (auto& place : places_->all()) {
    const auto name = place.module.name;
    try {
      hold(place, quantises(place.module) ? read_through(scratch, place) : read(place, opening.compute));
    } catch (const std::bad_alloc&) {
      ran_out(checkpoint, name);
    } catch (const c10::OutOfMemoryError&) {  // of a device
      ran_out(checkpoint, name);
    } catch (const c10::Error& problem) {
      // What LibTorch's allocator for the CPU throws has no type of its own.
      if (std::string_view(problem.what_without_backtrace()).find("can't allocate memory") == std::string_view::npos)
        throw;
      ran_out(checkpoint, name);
    }
  }
}

// Before anything is read: reading for minutes and then being killed tells nobody why.
void CausalModel::require_room(const std::filesystem::path& checkpoint) const {
  require_memory(checkpoint.string(), plan().modules, opening_, quantisable(), free_memory_on(opening_.device));
}

void CausalModel::ran_out(const std::filesystem::path& checkpoint, const std::string& module) {
  places_.reset();  // what was read so far makes room for saying so
  decoder_.reset();
  throw Error(
      fmt::format("{}: memory ran out while '{}' was read, although it was free before: another process took it. "
                  "Free some, or hold the base smaller ([model] base_dtype, compute)",
                  checkpoint.string(), module));
}

void CausalModel::initialise(const std::filesystem::path& checkpoint, const Opening& opening, std::uint64_t seed) {
  at::NoGradGuard no_grad;
  prepare(checkpoint, opening);
  auto generator = make_generator(seed);
  for (auto& place : places_->all()) {
    const auto& module = place.module;
    if (module.kind == Module::Kind::Attention) continue;
    auto weight = module.kind == Module::Kind::Norm
                      ? at::full(weight_shape(module), decoder_->plan().initial_norm, at::kFloat)
                      : at::empty(weight_shape(module), at::kFloat)
                            .normal_(0, decoder_->plan().initial_deviation(module), generator);
    auto bias = module.bias ? at::zeros({module.out}, at::kFloat) : at::Tensor();
    hold(place, {weight, bias});
    // A base that has to be small is its own only copy.
    if (opening.base == BaseDtype::Compute) initial_.emplace(module.name, Weights(weight, bias));
  }
}

std::pair<at::Tensor, at::Tensor> CausalModel::base(std::string_view module) const {
  plan();
  const auto& place = places_->at(module);
  if (auto found = initial_.find(module); found != initial_.end()) {
    const auto& [weight, bias] = found->second;
    return {weight.clone(), bias.defined() ? bias.clone() : at::Tensor()};
  }
  if (opening_.base == BaseDtype::Compute) return read(place, DType::f32);
  const auto wide = [](const at::Tensor& tensor) {
    return tensor.defined() ? tensor.to(at::kFloat, false, true).to(at::kCPU) : tensor;
  };
  return {place.stored.defined() ? place.stored.get(at::kFloat).to(at::kCPU) : wide(place.weight), wide(place.bias)};
}

std::vector<std::pair<std::string, at::Tensor>> CausalModel::merged() const {
  plan();
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const auto& place : places_->all()) {
    Places::require_foldable(place);
    if (place.module.kind == Module::Kind::Attention) continue;
    const auto original = base(place.module.name);
    auto [weight, bias] = Places::folded(place, original.first, original.second);
    if (place.module.stored_transposed) weight = weight.t().contiguous();
    tensors.emplace_back(place.module.name + ".weight", weight);
    if (bias.defined()) tensors.emplace_back(place.module.name + ".bias", bias);
  }
  return tensors;
}

void CausalModel::inject(std::span<const Injection> injections) {
  for (const auto& [module, what] : injections) {
    const auto* prompt = std::get_if<Prompt>(&what);
    const auto* prefix = std::get_if<Prefix>(&what);
    if (!prompt && !prefix) continue;
    const auto& front = prompt ? prompt->rows : prefix->keys;
    if (front.defined() && front.dim() > 0 && front.size(0) >= plan().max_length)
      throw Error(
          fmt::format("injection into '{}': {} virtual tokens leave no room in this model's longest sequence, {}",
                      module, front.size(0), plan().max_length));
  }
  plan();
  places_->inject(injections);
}

Batch CausalModel::checked(const Batch& batch, const KeyValueCache* cache) const {
  const auto& tokens = batch.tokens;
  if (!tokens.defined() || tokens.dim() != 2 || tokens.numel() == 0 || tokens.scalar_type() != at::kLong)
    throw Error("a batch's tokens must be a table of 64-bit ids, [batch, length], with at least one");
  const auto past = cache ? cache->length() : 0, length = tokens.size(1);
  if (past + length > max_length())
    throw Error(fmt::format("{} tokens are more than this model's longest sequence, {}", past + length, max_length()));
  if (cache && cache->front() != places_->virtual_tokens())
    throw Error(fmt::format("this cache was made for {} virtual tokens before the text, and the adapter has {}",
                            cache->front(), places_->virtual_tokens()));
  if (cache && past + length > cache->capacity())
    throw Error(fmt::format("{} tokens do not fit a cache made for {}", past + length, cache->capacity()));
  const auto least = tokens.min().item<std::int64_t>(), largest = tokens.max().item<std::int64_t>();
  if (least < 0 || largest >= plan().vocabulary)
    throw Error(
        fmt::format("token id {} is outside this model's vocabulary of {}; is the tokenizer that of another model?",
                    least < 0 ? least : largest, plan().vocabulary));
  const auto& device = opening_.device;
  const auto there = [&](const at::Tensor& table) { return table.defined() ? table.to(device) : table; };
  Batch complete = batch;
  complete.tokens = there(tokens);
  complete.segments = there(batch.segments);
  complete.positions = there(batch.positions);
  if (!complete.positions.defined())
    complete.positions =
        at::arange(past, past + length, complete.tokens.options()).unsqueeze(0).expand({tokens.size(0), length});
  return complete;
}

Pass CausalModel::pass(const Batch& batch, Dropout& dropout, KeyValueCache* cache) const {
  return {batch, compute_, dropout, cache, opening_.kernels, opening_.recompute};
}

at::Tensor CausalModel::head_logits(const at::Tensor& hidden, Dropout& dropout) const {
  const auto logits = linear(places_->at(plan().head), hidden, dropout).to(at::kFloat);
  const double cap = plan().logit_soft_cap;
  return cap == 0 ? logits : at::tanh(logits / cap) * cap;
}

at::Tensor CausalModel::loss(const Batch& batch) {
  const auto complete = checked(batch, nullptr);
  auto hidden = decoder_->forward(pass(complete, dropout_, nullptr));
  return head_loss(places_->at(plan().head), hidden, complete.labels, dropout_, plan().logit_soft_cap,
                   opening_.kernels);
}

// Row by row: [counted, vocabulary] in fp32. The index says where each stands in the flattened labels.
std::pair<at::Tensor, at::Tensor> CausalModel::counted(const Batch& batch) {
  const auto complete = checked(batch, nullptr);
  auto hidden = decoder_->forward(pass(complete, dropout_, nullptr));
  const auto index = complete.labels.reshape({-1}).ge(0).nonzero().squeeze(1).to(hidden.device());
  const auto rows = hidden.reshape({-1, hidden.size(-1)}).index_select(0, index);
  return {head_logits(rows, dropout_), index};
}

at::Tensor CausalModel::counted_logits(const Batch& batch) { return counted(batch).first; }

at::Tensor CausalModel::label_losses(const Batch& batch) {
  const auto complete = checked(batch, nullptr);
  const auto hidden = decoder_->forward(pass(complete, dropout_, nullptr));
  return head_label_losses(places_->at(plan().head), hidden, complete.labels, dropout_, plan().logit_soft_cap);
}

at::Tensor CausalModel::hidden(const Batch& batch) {
  at::NoGradGuard no_grad;
  Dropout off;
  const auto complete = checked(batch, nullptr);
  return decoder_->forward(pass(complete, off, nullptr)).to(at::kFloat);
}

std::unique_ptr<Cache> CausalModel::cache(std::int64_t batch, std::int64_t most) const {
  if (most > max_length())
    throw Error(fmt::format("{} tokens are more than this model's longest sequence, {}", most, max_length()));
  return std::make_unique<KeyValueCache>(plan().layers, batch, plan().heads, most,
                                         at::TensorOptions().dtype(compute_).device(opening_.device),
                                         places_->virtual_tokens());
}

at::Tensor CausalModel::logits(const Batch& batch, Cache* cache) {
  at::NoGradGuard no_grad;
  auto* held = dynamic_cast<KeyValueCache*>(cache);
  if (cache && !held) throw Error("this cache was made by another model");
  const auto complete = checked(batch, held);
  if (held && held->batch() != complete.tokens.size(0)) throw Error("this cache was made for another batch size");
  Dropout off;
  auto hidden = decoder_->forward(pass(complete, off, held));
  if (held) held->advance(complete.tokens.size(1));
  if (!held || !complete.labels.defined()) return head_logits(hidden, off);
  const auto index = complete.labels.reshape({-1}).ge(0).nonzero().squeeze(1).to(hidden.device());
  const auto rows = head_logits(hidden.reshape({-1, hidden.size(-1)}).index_select(0, index), off);
  auto all = at::empty({hidden.size(0), hidden.size(1), rows.size(1)}, rows.options());
  all.view({-1, rows.size(1)}).index_copy_(0, index, rows);
  return all;
}

}  // namespace hansa::nn
