// What a model promises of injections: each is honoured as it is, or refused by name.
#include <algorithm>
#include <cmath>

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <ATen/TensorOperators.h>
#include <fmt/format.h>
#include <hf/tensors.hpp>

#include "conformance/opened_model.hpp"
#include "conformance/probes.hpp"

namespace hansa::conformance {

Batch with_classes(const Batch& batch, std::int64_t classes, std::uint64_t seed) {
  Batch made{.tokens = batch.tokens, .documents = batch.documents, .task = Task::Classification};
  const auto rows = batch.tokens.size(0);
  made.labels = at::empty({rows}, at::kLong);
  made.segments = at::zeros_like(batch.tokens).masked_fill_(batch.labels.eq(-100), -1);
  made.segments.select(1, 0).zero_();  // the first token is always there
  for (std::int64_t row = 0; row < rows; ++row)
    made.labels[row].fill_(
        static_cast<std::int64_t>((seed + static_cast<std::uint64_t>(row)) % static_cast<std::uint64_t>(classes)));
  made.counted = rows;
  return made;
}

std::function<void(const Subject&)> on_batches(ModelCheck check, std::int64_t rows, std::int64_t length,
                                               std::int64_t fewest) {
  return [=](const Subject& subject) {
    const auto extent = [=](const Case& input) {
      const auto part = [&](std::int64_t most, std::int64_t least) {
        return std::max(least, most * input.size / kLargest);
      };
      return Extent{part(rows, 1), part(length, fewest), input.seed};
    };
    largest_then_smaller(
        subject,
        [&](const Case& input) {
          return fmt::format("a batch of {} row(s) of {} tokens", extent(input).rows, extent(input).length);
        },
        [&](const Case& input) { check(subject, Opened(subject), extent(input)); });
  };
}

Injection pair_for(const Module& module, Fill fill, std::uint64_t seed, double dropout) {
  auto A = random_tensor({2, module.in}, seed, 0.3),
       B = random_tensor({module.out, 2}, seed + 1, fill == Fill::Nothing ? 0 : 0.3);
  return {module.name, LowRank{A.requires_grad_(true), B.requires_grad_(true), 0.5, dropout}};
}
namespace {

Injection whole_for(const Model& model, const Module& module, Fill fill, std::uint64_t seed) {
  const auto moved = [&](const at::Tensor& base, std::uint64_t own) {
    if (!base.defined()) return at::Tensor();
    return (base.detach() + random_tensor(base.sizes().vec(), own, fill == Fill::Nothing ? 0 : 0.1))
        .contiguous()
        .requires_grad_(true);
  };
  const auto [weight, bias] = model.base(module.name);
  return {module.name, Replace{moved(weight, seed), moved(bias, seed + 1)}};
}
bool takes(Model& model, const Injection& injection) {
  const auto said = sentence_of([&] { model.inject(std::span(&injection, 1)); });
  hold(said.empty() || said.find(injection.module) != std::string::npos,
       fmt::format("it refuses an injection into '{}' without naming the module: {}", injection.module, said));
  model.inject({});
  return said.empty();
}
}  // namespace

std::vector<Injection> injections_for(const Opened& opened, Fill fill, double dropout) {
  std::vector<Injection> all;
  std::uint64_t seed = 100;
  for (const auto& module : opened.modules) {
    if (module.kind == Module::Kind::Attention) continue;  // neither pairs nor weights fit there
    seed += 2;
    const bool matrix = module.kind == Module::Kind::Linear || module.kind == Module::Kind::Head;
    auto pair = pair_for(module, fill, seed, dropout);
    if (matrix && takes(*opened.model, pair)) {
      all.push_back(std::move(pair));
      continue;
    }
    auto whole = whole_for(*opened.model, module, fill, seed);
    if (takes(*opened.model, whole)) all.push_back(std::move(whole));
  }
  if (all.empty()) throw NotConcerned("it takes no injection into any module: nothing could be trained in it");
  return all;
}
std::vector<std::pair<std::string, at::Tensor>> tensors_of(const std::vector<Injection>& injections) {
  std::vector<std::pair<std::string, at::Tensor>> all;
  for (const auto& [module, what] : injections) {
    if (const auto* pair = std::get_if<LowRank>(&what)) {
      all.emplace_back(module + " (A)", pair->A);
      all.emplace_back(module + " (B)", pair->B);
    } else {
      const auto& whole = std::get<Replace>(what);
      all.emplace_back(module + " (weight)", whole.weight);
      if (whole.bias.defined()) all.emplace_back(module + " (bias)", whole.bias);
    }
  }
  return all;
}

namespace {

void injections_are_honoured(const Subject&, const Opened& opened, const Extent& extent) {
  const auto batch = opened.batch(extent);
  const auto plain = opened.logits(batch);
  opened.model->inject(injections_for(opened, Fill::Nothing));
  double off = relative_error(opened.logits(batch), plain);
  hold(off < kSameSums,
       fmt::format(
           "injections that change nothing (B = 0, or the base's weights) change the logits by {:.1e} of the largest",
           off));
  const auto all = injections_for(opened, Fill::Something);
  for (const auto& one : all) {
    opened.model->inject(std::span(&one, 1));
    off = relative_error(opened.logits(batch), plain);
    hold(off > 1e-6, fmt::format("it takes an injection into '{}' and computes as without it", one.module));
  }
  opened.model->inject({});
  hold(same_bits(opened.logits(batch), plain), "with the injections taken out again the logits are others");
}

void live(const Subject&, const Opened& opened, const Extent& extent) {
  const auto batch = opened.batch(extent);
  auto all = injections_for(opened, Fill::Something);
  opened.model->inject(all);
  for (auto& [name, tensor] : tensors_of(all)) {
    const double before = opened.loss(batch);
    const auto held = tensor.detach().clone();
    tensor.detach().add_(random_tensor(held.sizes().vec(), 8, 0.5));
    const bool changed = opened.loss(batch) != before;
    tensor.detach().copy_(held);
    hold(changed || name.ends_with("(bias)"),  // some biases cancel out
         fmt::format("what is written into the injected '{}' does not reach the loss: it was copied", name));
  }
}

void merged_computes_the_same(const Subject& subject, const Opened& opened, const Extent& extent) {
  const auto batch = opened.batch(extent);
  opened.model->inject(injections_for(opened, Fill::Something));
  const auto want = opened.logits(batch);
  const auto folder = subject.scratch / "merged";
  std::filesystem::create_directories(folder);
  std::filesystem::copy_file(opened.checkpoint / "config.json", folder / "config.json",
                             std::filesystem::copy_options::overwrite_existing);
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const auto& [name, tensor] : opened.model->merged()) tensors.emplace_back(name, tensor.detach().contiguous());
  hf::save_tensors(folder / "model.safetensors", tensors);
  const auto again = subject.make<Model>();
  again->open(folder, {});
  const double off = relative_error(again->logits(batch, nullptr), want);
  hold(
      off < 1e-4,
      fmt::format(
          "a checkpoint of merged() computes other logits than the model with its injections, by {:.1e} of the largest",
          off));
}

void gradients_arrive(const Subject&, const Opened& opened, const Extent& extent) {
  const auto batch = opened.batch(extent);
  const auto all = injections_for(opened, Fill::Something);
  opened.model->inject(all);
  opened.model->loss(batch).backward();
  std::uint64_t seed = extent.seed + 40;
  for (auto& [name, tensor] : tensors_of(all)) {
    const auto gradient = tensor.grad();
    hold(gradient.defined(), fmt::format("no gradient reaches the injected '{}'", name));
    hold(gradient.isfinite().all().item<bool>(), fmt::format("the gradient of '{}' is not finite", name));
    const auto direction = random_tensor(tensor.sizes().vec(), ++seed);
    const double length = direction.norm().item<double>(), step = 2e-2 / length;
    const auto held = tensor.detach().clone();
    const auto moved = [&](double by) {
      tensor.detach().copy_(held + direction * by);
      const double loss = opened.loss(batch);
      tensor.detach().copy_(held);
      return loss;
    };
    const double slope = (moved(step) - moved(-step)) / (2 * step), want = (gradient * direction).sum().item<double>();
    const double scale = gradient.norm().item<double>() * length;
    hold(std::abs(slope - want) < 0.05 * std::abs(want) + 0.02 * scale + 0.05 * length,
         fmt::format("along a random direction the gradient of '{}' says {:.5g}, finite differences say {:.5g}", name,
                     want, slope));
  }
}

void refusals_name(const Subject&, const Opened& opened, const Extent& extent) {
  const auto batch = opened.batch(extent);
  const auto plain = opened.logits(batch);
  const auto refused = [&](const Injection& injection, const std::string& what) {
    const auto said = sentence_of([&] { opened.model->inject(std::span(&injection, 1)); });
    hold(!said.empty(), fmt::format("it takes {}", what));
    hold(said.find(injection.module) != std::string::npos,
         fmt::format("it refuses {} without naming the module: {}", what, said));
    hold(same_bits(opened.logits(batch), plain),
         fmt::format("it refuses {} and computes otherwise from then on", what));
  };
  const auto any = at::zeros({2, 2});
  refused({"no.such.module", LowRank{any, any}}, "a pair for a module that it does not have, 'no.such.module'");
  refused({"no.such.module", Replace{any, {}}}, "weights for a module that it does not have, 'no.such.module'");
  for (const auto& module : opened.modules) {
    auto narrow = module;
    ++narrow.in;
    if (module.kind == Module::Kind::Linear)
      refused(pair_for(narrow, Fill::Something, 1),
              fmt::format("a pair for '{}' whose A has {} columns for {} inputs", module.name, narrow.in, module.in));
    refused({module.name, Replace{at::zeros({module.out + 1, module.in + 1}), {}}},
            fmt::format("weights of the wrong shape for '{}'", module.name));
  }
}

void dropout_is_seeded(const Subject&, const Opened& opened, const Extent& extent) {
  const auto batch = opened.batch(extent);
  opened.model->inject(injections_for(opened, Fill::Something, 0.5));
  const double plain = opened.loss(batch);
  hold(opened.loss(batch) == plain, "with dropout off, as a model starts, two passes give two losses");
  const auto two = [&](std::uint64_t seed) {
    opened.model->enable_dropout(seed);
    const double first = opened.loss(batch);
    return std::pair(first, opened.loss(batch));
  };
  const auto first = two(7), again = two(7), other = two(8);
  hold(first == again, "enable_dropout with the same seed gives other masks");
  opened.model->disable_dropout();
  hold(opened.loss(batch) == plain, "after disable_dropout the loss is another than before dropout was on");
  const auto all = injections_for(opened, Fill::Something, 0.5);
  const bool any =
      std::any_of(all.begin(), all.end(), [](const Injection& i) { return std::holds_alternative<LowRank>(i.what); });
  hold(!any || first != other,
       "enable_dropout with two seeds gives the same masks, or none: injected pairs have a dropout of 0.5");
}

}  // namespace

std::vector<Check> injection_checks() {
  return {
      {"injections", "Each injection that it takes is computed with, and gone when it is taken out.",
       on_batches(injections_are_honoured, 2, 8)},
      {"live", "Injected tensors are read at every pass.", on_batches(live, 2, 8)},
      {"merged", "merged() is the model as it computes.", on_batches(merged_computes_the_same, 2, 8)},
      {"gradients", "Gradients reach what was injected, and are right.", on_batches(gradients_arrive, 2, 8)},
      {"refusals", "An injection that does not fit is refused by the module's name and changes nothing.",
       on_batches(refusals_name, 1, 4)},
      {"dropout", "Dropout is off at the start and a function of its seed.", on_batches(dropout_is_seeded, 4, 8)},
  };
}

}  // namespace hansa::conformance
