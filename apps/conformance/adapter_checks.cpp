// What an adapter promises: its parameters are those of its layout, the model starts as its base and learns by them, the base
// stays as it is, and what is exported can be taken up again.
#include <algorithm>
#include <cmath>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>
#include <ATen/TensorOperators.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <hf/safetensors.hpp>

#include "base/file.hpp"
#include "conformance/driver.hpp"
#include "conformance/partners.hpp"
#include "conformance/probes.hpp"

namespace hansa::conformance {
namespace {

constexpr double kLogitsClose = 1e-4;  // of logits, computed another way

// A model that has what this adapter looks for.
Bench::Fits fits_of(const Subject& subject) {
  return [&subject](std::span<const Module> modules) { subject.make<Adapter>()->layout(modules, 0); };
}
Bench bench_for(const Subject& subject) { return Bench(subject, fits_of(subject)); }

// An adapter in a model.
class Fitted {
 public:
  Fitted(const Subject& subject, Bench& bench, double rank = 0) : bench_(bench), adapter_(subject.make<Adapter>()) {
    begin(rank, subject.seed);
  }
  Fitted(Bench& bench, Instance<Adapter> adapter) : bench_(bench), adapter_(std::move(adapter)) {}

  void begin(double rank, std::uint64_t seed) {
    layout_ = adapter_->layout(bench_.modules, rank);
    adapter_->create(bench_.model, bench_.modules, rank, seed);
    put_in();
  }
  void put_in() { bench_.model.inject(adapter_->injections()); }
  Adapter& adapter() { return *adapter_; }
  const Layout& layout() const { return layout_; }
  std::vector<at::Tensor> parameters() {
    std::vector<at::Tensor> all;
    for (Index i = 0; i < layout_.tensors.size(); ++i) all.push_back(adapter_->parameter(i));
    return all;
  }
  NamedTensors values() {
    NamedTensors all;
    for (Index i = 0; i < layout_.tensors.size(); ++i)
      all.emplace_back(layout_.tensors[i].name, adapter_->parameter(i).detach().clone());
    return all;
  }
  double loss() {
    const at::NoGradGuard no_grad;
    return bench_.model.loss(lesson()).item<double>();
  }
  // Steps along the gradient, each as long as the loss still falls. Gives the loss afterwards.
  double learn(int steps);

 private:
  Batch lesson() const { return made_up_batch(4, 8, bench_.model.vocabulary(), 3); }
  Bench& bench_;
  Instance<Adapter> adapter_;
  Layout layout_;
};

double Fitted::learn(int steps) {
  put_in();
  const auto live = parameters();
  double now = loss();
  for (int step = 0; step < steps; ++step) {
    for (const auto& parameter : live) parameter.mutable_grad() = at::Tensor();
    const auto loss_now = bench_.model.loss(lesson());
    hold(loss_now.requires_grad(), "no gradient reaches any parameter: the model does not compute with them");
    loss_now.backward();
    const at::NoGradGuard no_grad;
    double square = 0;
    for (std::size_t i = 0; i < live.size(); ++i) {
      hold(live[i].grad().defined(),
           fmt::format("no gradient reaches '{}': the model does not compute with parameter({})",
                       layout_.tensors[i].name, i));
      square += live[i].grad().norm().item<double>() * live[i].grad().norm().item<double>();
    }
    hold(std::isfinite(square) && square > 0,
         fmt::format("the gradient's norm is {} in step {}", std::sqrt(square), step + 1));
    const auto before = [&] {
      std::vector<at::Tensor> all;
      for (const auto& parameter : live) all.push_back(parameter.detach().clone());
      return all;
    }();
    // The length that would halve the loss if it were linear, then ever shorter.
    bool fell = false;
    for (double length = now / (2 * square); !fell && length > 1e-9 * now / square; length /= 4) {
      for (std::size_t i = 0; i < live.size(); ++i) live[i].detach().copy_(before[i] - live[i].grad() * length);
      const double there = loss();
      fell = there < now;
      if (fell) now = there;
    }
    if (!fell) {
      for (std::size_t i = 0; i < live.size(); ++i) live[i].detach().copy_(before[i]);
      break;
    }
  }
  for (const auto& parameter : live) parameter.mutable_grad() = at::Tensor();
  return now;
}

class AdapterDriver final : public Driver {
 public:
  AdapterDriver(const Subject& subject, std::shared_ptr<Bench> bench, const Value& params, std::uint64_t run_seed)
      : bench_(std::move(bench)), adapter_(subject.make_with<Adapter>(params, run_seed)) {}
  Component& component() override { return *adapter_; }
  NamedTensors play(const Case& input) override {
    auto& model = bench_->model;
    model.inject({});
    if (watches_inputs) model.watch_base();
    const auto layout = adapter_->layout(bench_->modules, 0);
    adapter_->create(model, bench_->modules, 0, input.seed + 1000 * input.round);
    NamedTensors trace{{"layout", number(digest_of(layout))}};
    for (Index i = 0; i < layout.tensors.size(); ++i)
      trace.emplace_back(layout.tensors[i].name, adapter_->parameter(i).detach().clone());
    model.inject(adapter_->injections());
    const at::NoGradGuard no_grad;
    trace.emplace_back("loss", model.loss(batch(input)).detach().clone());
    model.inject({});
    if (watches_inputs) model.check_base("it");
    return trace;
  }
  void leave_half_way(const Case& input) override {
    adapter_->create(bench_->model, bench_->modules, 0, input.seed);
    bench_->model.inject(adapter_->injections());
    bench_->model.inject({});
  }
  std::string describe(const Case& input) const override {
    return fmt::format("create() with the seed {}, then a batch of {} rows of {} tokens",
                       input.seed + 1000 * input.round, 1 + input.size, 4 + 2 * input.size);
  }

 private:
  Batch batch(const Case& input) const {
    return made_up_batch(1 + input.size, 4 + 2 * input.size, bench_->model.vocabulary(), input.seed);
  }
  std::shared_ptr<Bench> bench_;
  Instance<Adapter> adapter_;
};

// ---- what the checks below are tried on ------------------------------------------------------------------------------------

// Names of modules that the adapter takes by themselves; when none is, there is nothing smaller than the whole model.
std::vector<std::string> taken_alone(const Subject& subject, const Bench& bench) {
  std::vector<std::string> names;
  for (const auto& module : bench.modules)
    if (sentence_of([&] { subject.make<Adapter>()->layout(std::span(&module, 1), 0); }).empty())
      names.push_back(module.name);
  return names;
}

// On all modules of a model; when that breaks, on the first one, two, four, eight that it takes.
std::function<void(const Subject&)> on_modules(void (*check)(const Subject&, Bench&)) {
  return [check](const Subject& subject) {
    Bench whole = bench_for(subject);
    const auto alone = taken_alone(subject, whole);
    const auto first = [&](const Case& input) {
      return std::span(alone).first(std::min(alone.size(), std::size_t{1} << input.size));
    };
    const auto describe = [&](const Case& input) {
      if (input.size == kLargest) return fmt::format("all {} modules of the model", whole.modules.size());
      return fmt::format("the module{} {}", first(input).size() == 1 ? "" : "s", fmt::join(first(input), ", "));
    };
    largest_then_smaller(subject, describe, [&](const Case& input) {
      if (input.size == kLargest) return check(subject, whole);
      const auto names = first(input);
      Bench few = bench_for(subject);
      std::erase_if(few.modules, [&](const auto& module) {
        return std::find(names.begin(), names.end(), module.name) == names.end();
      });
      check(subject, few);
    });
  };
}

// ---- checks ----------------------------------------------------------------------------------------------------------------

std::string shape_text_of(const at::Tensor& tensor) { return shapes_text({tensor.sizes().vec()}); }

void layout_is_pure(const Subject& subject, Bench& bench) {
  Fitted fitted(subject, bench);
  const auto fresh = subject.make<Adapter>();
  const auto alone = fresh->layout(bench.modules, 0);  // as on the coordinator: no model, nothing created
  hold(!alone.tensors.empty(), "its layout is empty: nothing would be trained");
  check_layout(alone, "its layout");
  hold(alone == fresh->layout(bench.modules, 0), "two questions for its layout gave two answers");
  hold(alone == fitted.layout(), "an adapter that created nothing has another layout than the node's");
  hold(alone == fitted.adapter().layout(bench.modules, 0), "its layout is another one after create()");
  fitted.learn(1);
  hold(alone == fitted.adapter().layout(bench.modules, 0), "its layout is another one after training");
}

void nothing_to_train(const Subject& subject) {
  const auto adapter = subject.make<Adapter>();
  with_input(subject, subject.seed, "a model without modules", [&] {
    const auto said = sentence_of([&] { adapter->layout({}, 0); });
    hold(!said.empty(), "for a model without modules it gives a layout instead of saying that nothing matches");
  });
}

void parameters_fit(const Subject& subject, Bench& bench) {
  Fitted fitted(subject, bench);
  for (Index i = 0; i < fitted.layout().tensors.size(); ++i) {
    const auto& spec = fitted.layout().tensors[i];
    const auto parameter = fitted.adapter().parameter(i);
    hold(parameter.defined(), fmt::format("parameter({}) is undefined; the layout has '{}' there", i, spec.name));
    hold(parameter.sizes() == at::IntArrayRef(spec.shape),
         fmt::format("parameter({}) is {}, but the layout's '{}' is {}", i, shape_text_of(parameter), spec.name,
                     shapes_text({spec.shape})));
    hold(parameter.scalar_type() == at::kFloat && spec.dtype == DType::f32,
         fmt::format("'{}' is not fp32 in both the layout and parameter({})", spec.name, i));
    hold(parameter.requires_grad() && parameter.is_leaf(),
         fmt::format("parameter({}) '{}' does not ask for a gradient", i, spec.name));
    hold(parameter.const_data_ptr() == fitted.adapter().parameter(i).const_data_ptr(),
         fmt::format("parameter({}) '{}' is a copy: two calls gave two tensors", i, spec.name));
    hold(parameter.isfinite().all().item<bool>(), fmt::format("'{}' is not finite as created", spec.name));
  }
}

void same_seed(const Subject& subject, Bench& bench) {
  Fitted first(subject, bench), second(subject, bench);
  auto found = difference(first.values(), second.values());
  hold(found.empty(), "two instances, created with the same seed: " + found);
  first.learn(2);
  first.begin(0, subject.seed);
  found = difference(first.values(), second.values());
  hold(found.empty(), "created again with the same seed after a training: " + found);
}

void begins_as_base(const Subject& subject, Bench& bench) {
  const auto base = bench.base_answers();
  Fitted fitted(subject, bench);
  for (const auto& injection : fitted.adapter().injections())
    if (std::holds_alternative<Prompt>(injection.what) || std::holds_alternative<Prefix>(injection.what))
      throw NotConcerned("it puts tokens before each text, and none leaves a model as it is");
  const double off = relative_error(bench.answers(), base);
  hold(off < kLogitsClose,
       fmt::format("a model with the adapter as created computes other logits than the base, by {:.1e} of the largest",
                   off));
}

void loss_falls(const Subject& subject, Bench& bench) {
  Fitted fitted(subject, bench);
  const double before = fitted.loss(), after = fitted.learn(8);
  hold(after < before * (1 - 1e-4),
       fmt::format("eight steps along its parameters' gradient take the loss from {:.6g} to {:.6g}", before, after));
}

void base_stays(const Subject& subject, Bench& bench) {
  const auto weights = [&] {
    NamedTensors all;
    for (const auto& module : bench.modules) {
      const auto [weight, bias] = bench.real->base(module.name);
      if (weight.defined()) all.emplace_back(module.name + ".weight", weight.detach().clone());
      if (bias.defined()) all.emplace_back(module.name + ".bias", bias.detach().clone());
    }
    return all;
  };
  const auto before = weights();
  const auto base = bench.base_answers();
  const auto files = hf::checkpoint_digest(bench.checkpoint);
  {
    bench.model.watch_base();
    Fitted fitted(subject, bench);
    bench.model.check_base("create()");
    bench.model.watch_base();
    fitted.begin(0, subject.seed + 1);
    fitted.learn(4);
    bench.model.check_base("a training of the adapter's parameters");
    bench.model.watch_base();
    sentence_of([&] { fitted.adapter().receive(bench.model, {"no such channel", 1, true, {{"x", at::zeros({2})}}}); });
    fitted.adapter().export_to(bench.model, bench.modules, bench.checkpoint.string(),
                               subject.scratch / "exported-base");
    bench.model.check_base("export_to()");
  }
  const auto found = difference(weights(), before);
  hold(found.empty(), "the model's base is another one after create, training and export: " + found);
  hold(same_bits(bench.base_answers(), base),
       "without injections the model computes other logits than before the adapter came");
  hold(hf::checkpoint_digest(bench.checkpoint) == files, "the files of the base's checkpoint were changed");
}

void unknown_feedback(const Subject& subject, Bench& bench) {
  Fitted fitted(subject, bench);
  const auto said = sentence_of([&] {
    fitted.adapter().receive(bench.model, {"no such channel", 1, true, {{"x", at::zeros({2})}}});
  });
  hold(!said.empty(), "it takes a channel 'no such channel' and says nothing");
}

// The coordinator knows the parameters only: with the same seed and these values a node has the same model.
void parameters_say_it_all(const Subject& subject, Bench& bench) {
  Fitted trained(subject, bench);
  trained.learn(4);
  const auto want = bench.answers();
  Fitted other(subject, bench);
  {
    const at::NoGradGuard no_grad;
    for (Index i = 0; i < trained.layout().tensors.size(); ++i)
      other.adapter().parameter(i).copy_(trained.adapter().parameter(i));
  }
  const double off = relative_error(bench.answers(), want);
  hold(off < 1e-6,
       fmt::format(
           "another instance, created with the same seed, with the trained parameters copied into parameter(i): its "
           "logits are others, by {:.1e} of the largest",
           off));
}

void honours_rank(const Subject& subject, Bench& bench) {
  if (!subject.declares(HANSA_TRAIT_RANK_AWARE)) throw NotConcerned("it does not declare RankAware");
  const auto own = subject.make<Adapter>()->layout(bench.modules, 0);
  for (const double rank : {1.0, 2.0, 3.0}) {
    Fitted fitted(subject, bench, rank);
    check_layout(fitted.layout(), fmt::format("its layout at rank {}", rank));
    hold(fitted.layout().tensors.size() == own.tensors.size(),
         fmt::format("at rank {} its layout has {} tensors, else {}", rank, fitted.layout().tensors.size(),
                     own.tensors.size()));
    bool there = false;
    for (Index i = 0; i < own.tensors.size(); ++i) {
      const auto& spec = fitted.layout().tensors[i];
      hold(spec.name == own.tensors[i].name,
           fmt::format("at rank {} tensor {} is called '{}', else '{}'", rank, i, spec.name, own.tensors[i].name));
      const auto parameter = fitted.adapter().parameter(i);
      hold(parameter.sizes() == at::IntArrayRef(spec.shape),
           fmt::format("at rank {} parameter({}) is {}, but the layout says {}", rank, i, shape_text_of(parameter),
                       shapes_text({spec.shape})));
      for (auto extent : spec.shape) there = there || static_cast<double>(extent) == rank;
    }
    hold(there, fmt::format("it declares RankAware, but at rank {} no tensor has such an extent", rank));
    hold(fitted.learn(2) > 0, "the loss is not positive");
  }
}

void export_and_import(const Subject& subject, Bench& bench) {
  Fitted trained(subject, bench);
  trained.learn(4);
  const auto want = bench.answers();
  const auto folder = subject.scratch / "exported";
  std::filesystem::remove_all(folder);
  trained.adapter().export_to(bench.model, bench.modules, bench.checkpoint.string(), folder);
  hold(trained.adapter().recognises(folder), "it does not recognise what it exported itself");
  auto fresh = subject.make<Adapter>();
  hold(fresh->recognises(folder), "another instance does not recognise what was exported");
  bench.model.watch_base();
  const auto said = sentence_of([&] { fresh->import_from(folder, bench.model, bench.modules); });
  hold(said.empty(), "it cannot import what it exported itself: " + said);
  bench.model.check_base("import_from()");
  const auto layout = fresh->layout(bench.modules, 0);
  check_layout(layout, "its layout after an import");
  NamedTensors values;
  for (Index i = 0; i < layout.tensors.size(); ++i) {
    const auto said_of_it =
        sentence_of([&] { values.emplace_back(layout.tensors[i].name, fresh->parameter(i).detach().clone()); });
    hold(said_of_it.empty(),
         fmt::format("after an import parameter({}) '{}' fails: {}", i, layout.tensors[i].name, said_of_it));
    hold(fresh->parameter(i).requires_grad(),
         fmt::format("after an import parameter({}) '{}' does not ask for a gradient", i, layout.tensors[i].name));
  }
  if (layout == trained.layout()) {
    const auto now = trained.values();
    for (std::size_t i = 0; i < values.size(); ++i)
      hold(relative_error(values[i].second, now[i].second) < 1e-5,
           fmt::format("after export and import '{}' has other values", values[i].first));
  }
  Fitted imported(bench, std::move(fresh));
  imported.put_in();
  const double off = relative_error(bench.answers(), want);
  hold(off < kLogitsClose, fmt::format("after export and import the logits are others, by {:.1e} of the largest", off));
}

void foreign_folders(const Subject& subject, Bench& bench) {
  const auto adapter = subject.make<Adapter>();
  const auto empty = subject.scratch / "empty", odd = subject.scratch / "odd";
  std::filesystem::create_directories(empty);
  std::filesystem::create_directories(odd);
  for (const auto* name : {"adapter_config.json", "config.json", "adapter_model.safetensors", "notes.txt"})
    write_file_atomically(odd / name, "{ this is nobody's", Durability::Process);
  for (const auto& folder : {empty, subject.scratch / "missing", odd}) {
    bool taken = false;
    const auto said = sentence_of([&] { taken = adapter->recognises(folder); });
    hold(said.empty(), fmt::format("recognises({}) throws instead of saying no: {}", folder.filename().string(), said));
    hold(!taken || folder == odd,
         fmt::format("it says that the folder '{}' is one that it exported", folder.filename().string()));
    hold(!sentence_of([&] { adapter->import_from(folder, bench.model, bench.modules); }).empty(),
         fmt::format("it imports the folder '{}', in which there is no adapter, and says nothing",
                     folder.filename().string()));
  }
}

}  // namespace

Drive drive_adapter(const Subject& subject) {
  auto bench = std::make_shared<Bench>(subject, fits_of(subject));
  return {[&subject, bench](const Value& params, std::uint64_t run_seed) {
            return std::make_unique<AdapterDriver>(subject, bench, params, run_seed);
          },
          false};
}

std::vector<Check> adapter_checks() {
  return {
      {"layout", "The layout follows from the modules alone, and its groups are a partition.",
       on_modules(layout_is_pure)},
      {"no-match", "Where there is nothing to train it says so.", nothing_to_train},
      {"fits-layout", "Its parameters have the layout's order, shapes and type, ask for gradients, and are no copies.",
       on_modules(parameters_fit)},
      {"same-seed", "The same seed gives the same parameters to the bit.", on_modules(same_seed)},
      {"begins-as-base", "As created it leaves the model as it is.", on_modules(begins_as_base)},
      {"learns", "Steps along its parameters' gradient make the loss fall.", on_modules(loss_falls)},
      {"base", "The base's weights and files stay as they are, to the bit.", on_modules(base_stays)},
      {"suffices", "The seed and the parameters' values are all that a node needs.", on_modules(parameters_say_it_all)},
      {"odd-channel", "A channel that it has no use for is refused.", on_modules(unknown_feedback)},
      {"rank", "RankAware: a node's own rank shapes layout and parameters.", on_modules(honours_rank)},
      {"export", "What it exports it recognises, and an import computes the same.", on_modules(export_and_import)},
      {"odd-folders", "Folders that it did not write are not recognised and not imported.",
       on_modules(foreign_folders)},
  };
}

}  // namespace hansa::conformance
