// What a model promises: its modules are those of the checkpoint, its loss is the cross entropy of its logits, rows do not see
// each other nor padding, and a cache changes nothing. What it promises of injections: injection_checks.cpp.
#include <cmath>
#include <set>

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <ATen/TensorOperators.h>
#include <fmt/format.h>
#include <hf/tensors.hpp>

#include "base/file.hpp"
#include "conformance/driver.hpp"
#include "conformance/opened_model.hpp"
#include "conformance/probes.hpp"

namespace hansa::conformance {
namespace {

class ModelDriver final : public Driver {
 public:
  ModelDriver(const Subject& subject, const Value& params, std::uint64_t run_seed)
      : opened_(subject, subject.make_with<Model>(params, run_seed)),
        injections_(injections_for(opened_, Fill::Something)) {}
  Component& component() override { return *opened_.model; }
  NamedTensors play(const Case& input) override {
    auto& model = *opened_.model;
    model.inject({});
    Lent lent;
    auto batch = opened_.batch(1 + input.size, 4 + 2 * input.size, input.seed + 1000 * input.round);
    batch.tokens = lent.add(batch.tokens);
    batch.labels = lent.add(batch.labels);
    NamedTensors trace{{"logits", model.logits(batch, nullptr).clone()}};
    model.inject(injections_);
    model.enable_dropout(input.seed);
    {
      auto loss = model.loss(batch);
      trace.emplace_back("loss", loss.detach().clone());
      loss.backward();
    }
    model.disable_dropout();
    for (auto& [name, tensor] : tensors_of(injections_)) {
      trace.emplace_back("gradient of " + name, tensor.grad().defined() ? tensor.grad().clone() : at::zeros({0}));
      tensor.mutable_grad() = at::Tensor();
    }
    batch = Batch();
    if (watches_inputs) lent.check("the batch");
    return trace;
  }
  void leave_half_way(const Case& input) override { opened_.model->loss(opened_.batch(1, 4, input.seed)); }
  std::string describe(const Case& input) const override {
    return fmt::format("{} rows of {} tokens", 1 + input.size, 4 + 2 * input.size);
  }

 private:
  Opened opened_;
  std::vector<Injection> injections_;
};

// For checks whose input is a checkpoint: there is a single one, and nothing to make smaller.
std::function<void(const Subject&)> on_checkpoint(ModelCheck check) {
  return [check](const Subject& subject) {
    const Opened opened(subject);
    const auto name = subject.checkpoint.empty() ? "a tiny checkpoint with random weights" : "the given checkpoint";
    with_input(subject, subject.seed, fmt::format("{}, {} modules", name, opened.modules.size()),
               [&] { check(subject, opened, {}); });
  };
}

// ---- checks ----------------------------------------------------------------------------------------------------------------

void accepts_its_own(const Subject& subject) {
  const Opened opened(subject);
  with_input(subject, subject.seed, "the checkpoint that it was opened with", [&] {
    hold(opened.model->accepts(opened.checkpoint), "it does not accept the checkpoint that it reads");
  });
  const auto none = subject.scratch / "no-config", foreign = subject.scratch / "foreign",
             broken = subject.scratch / "broken";
  for (const auto& folder : {none, foreign, broken}) std::filesystem::create_directories(folder);
  write_file_atomically(foreign / "config.json", R"({"model_type": "nobody-has-this"})", Durability::Process);
  write_file_atomically(broken / "config.json", "{ this is no JSON", Durability::Process);
  for (const auto& folder : {none, foreign, broken, subject.scratch / "missing"}) {
    const auto name = folder.filename().string();
    with_input(subject, subject.seed, fmt::format("the folder '{}'", name), [&] {
      bool taken = false;
      const auto said = sentence_of([&] { taken = opened.model->accepts(folder); });
      hold(said.empty(), fmt::format("accepts({}) throws instead of saying no: {}", name, said));
      hold(!taken, fmt::format("it accepts the folder '{}', which describes no model of its own", name));
    });
  }
}

void modules_agree(const Subject& subject, const Opened& opened, const Extent&) {
  const auto alone = subject.make<Model>();
  const auto from_config = alone->modules(opened.checkpoint);  // as on the coordinator, which opens nothing
  hold(from_config.size() == opened.modules.size(), "modules() says something else once the weights are read");
  std::set<std::string> names;
  for (std::size_t i = 0; i < from_config.size(); ++i) {
    const auto &module = from_config[i], &read = opened.modules[i];
    hold(names.insert(module.name).second, fmt::format("there are two modules '{}'", module.name));
    hold(module.name == read.name && module.kind == read.kind && module.in == read.in && module.out == read.out &&
             module.bias == read.bias,
         fmt::format("modules() says something else of '{}' once the weights are read", module.name));
    const auto [weight, bias] = opened.model->base(module.name);
    if (module.kind == Module::Kind::Attention) {
      hold(!weight.defined() && !bias.defined(), fmt::format("base('{}') holds something", module.name));
      continue;
    }
    std::vector<std::int64_t> shape{module.out, module.in};
    if (module.kind == Module::Kind::Embedding) shape = {module.in, module.out};
    if (module.kind == Module::Kind::Norm) shape = {module.out};
    hold(weight.sizes() == at::IntArrayRef(shape),
         fmt::format("base('{}') is {}, but its module makes it {}", module.name, shapes_text({weight.sizes().vec()}),
                     shapes_text({shape})));
    hold(bias.defined() == module.bias,
         fmt::format("module '{}' says bias = {}, and base() says otherwise", module.name, module.bias));
    hold(weight.scalar_type() == at::kFloat && (!bias.defined() || bias.scalar_type() == at::kFloat),
         fmt::format("base('{}') is not fp32", module.name));
    hold(!bias.defined() || bias.sizes() == at::IntArrayRef({module.out}),
         fmt::format("base('{}'): the bias does not have {} elements", module.name, module.out));
  }
  hold(!sentence_of([&] { opened.model->base("no.such.module"); }).empty(), "base('no.such.module') gives something");
}

void seeded(const Subject& subject, const Opened&, const Extent&) {
  const auto weights = [&](std::uint64_t seed) {
    const Opened opened(subject);
    opened.model->initialise(opened.checkpoint, {}, seed);
    return opened.model->merged();
  };
  const auto first = weights(subject.seed);
  const auto found = difference(weights(subject.seed), first);
  hold(found.empty(), "initialise() twice with the same seed: " + found);
  hold(!difference(weights(subject.seed + 1), first).empty(), "initialise() gives the same weights for two seeds");
}

// The sum over counted labels, worked out in double from the logits.
double naive_loss(const at::Tensor& logits, const at::Tensor& labels) {
  const auto likely = at::log_softmax(logits.to(at::kDouble), -1);
  double sum = 0;
  if (labels.dim() == 1) {  // a class for each row
    for (std::int64_t row = 0; row < labels.size(0); ++row)
      if (const auto label = labels[row].item<std::int64_t>(); label != -100) sum -= likely[row][label].item<double>();
    return sum;
  }
  for (std::int64_t row = 0; row < labels.size(0); ++row)
    for (std::int64_t i = 0; i < labels.size(1); ++i)
      if (const auto label = labels[row][i].item<std::int64_t>(); label != -100)
        sum -= likely[row][i][label].item<double>();
  return sum;
}

void loss_is_cross_entropy(const Subject&, const Opened& opened, const Extent& extent) {
  for (const auto with : {Fill::Nothing, Fill::Something}) {
    const auto injections = injections_for(opened, with);
    if (with == Fill::Something) opened.model->inject(injections);
    for (std::int64_t rows = 1; rows <= extent.rows; ++rows) {
      const auto batch = opened.batch(rows, extent.length, extent.seed + static_cast<std::uint64_t>(rows));
      const auto logits = opened.logits(batch);
      const auto wanted = opened.classifies()
                              ? std::vector<std::int64_t>{rows, opened.classes}
                              : std::vector<std::int64_t>{rows, extent.length, opened.model->vocabulary()};
      hold(
          logits.sizes() == at::IntArrayRef(wanted) && logits.scalar_type() == at::kFloat && !logits.requires_grad(),
          fmt::format("logits are {}, fp32: {}, with a graph: {}; they are to be [batch, length, vocabulary], or of a "
                      "classifier [batch, classes], fp32, "
                      "without one",
                      shapes_text({logits.sizes().vec()}), logits.scalar_type() == at::kFloat, logits.requires_grad()));
      const auto loss = opened.model->loss(batch);
      hold(loss.dim() == 0 && loss.scalar_type() == at::kFloat, "the loss is no fp32 scalar");
      const double want = naive_loss(logits, batch.labels), got = loss.item<double>();
      hold(std::abs(got - want) < 1e-4 * std::abs(want),
           fmt::format("the loss is {:.7g}; from the logits, over labels that are not -100, it is {:.7g}", got, want));
    }
  }
}

void classified_rows_are_apart(const Opened& opened, const Extent& extent) {
  const auto batch = opened.batch(extent);
  const auto all = opened.logits(batch);
  double apart = 0;
  for (std::int64_t row = 0; row < extent.rows; ++row) {
    const auto length = batch.segments[row].ge(0).sum().item<std::int64_t>();
    const Batch one{.tokens = batch.tokens.narrow(0, row, 1).narrow(1, 0, length).contiguous(),
                    .labels = batch.labels.narrow(0, row, 1).contiguous(),
                    .counted = 1,
                    .task = Task::Classification};
    const double off = relative_error(all.narrow(0, row, 1), opened.logits(one));
    hold(off < kSameSums,
         fmt::format("row {} of {}, in the batch with {} tokens of padding, has other logits than alone, by {:.1e} of "
                     "the largest",
                     row, extent.rows, extent.length - length, off));
    apart += opened.loss(one);
  }
  const double together = opened.loss(batch);
  hold(std::abs(together - apart) < 1e-4 * apart,
       fmt::format("the loss of {} rows is {:.7g}, the sum of them alone {:.7g}", extent.rows, together, apart));
  auto other = batch;
  other.tokens = at::where(batch.segments.eq(-1), at::full({1}, 1, at::kLong), batch.tokens);
  hold(std::abs(opened.loss(other) - together) < 1e-5 * together, "other ids in the padding change the loss");
}

void rows_are_apart(const Subject&, const Opened& opened, const Extent& extent) {
  if (opened.classifies()) return classified_rows_are_apart(opened, extent);
  auto batch = opened.batch(extent);
  batch.segments = at::where(batch.labels.ne(-100), at::zeros({1}, at::kLong), at::full({1}, -1, at::kLong));
  const auto all = opened.logits(batch);
  double apart = 0;
  for (std::int64_t row = 0; row < extent.rows; ++row) {
    const auto length = batch.labels[row].ne(-100).sum().item<std::int64_t>();
    const Batch one{.tokens = batch.tokens.narrow(0, row, 1).narrow(1, 0, length).contiguous(),
                    .labels = batch.labels.narrow(0, row, 1).narrow(1, 0, length).contiguous(),
                    .counted = length};
    const double off = relative_error(all.narrow(0, row, 1).narrow(1, 0, length), opened.logits(one));
    hold(off < kSameSums,
         fmt::format("row {} of {}, in the batch with {} tokens of padding, has other logits than alone, "
                     "by {:.1e} of the largest",
                     row, extent.rows, extent.length - length, off));
    apart += opened.loss(one);
  }
  const double together = opened.loss(batch);
  hold(std::abs(together - apart) < 1e-4 * apart,
       fmt::format("the loss of {} rows is {:.7g}, the sum of them alone {:.7g}", extent.rows, together, apart));
  auto other = batch;  // other ids where there is only padding
  other.tokens = at::where(batch.segments.eq(-1), at::full({1}, 1, at::kLong), batch.tokens);
  hold(std::abs(opened.loss(other) - together) < 1e-5 * together, "other ids in the padding change the loss");
}

void require_language(const Opened& opened, const char* what) {
  if (opened.classifies()) throw NotConcerned(fmt::format("it tells a class for each row: {}", what));
}

void segments_are_apart(const Subject&, const Opened& opened, const Extent& extent) {
  require_language(opened, "a row holds one text");
  const auto length = extent.length;
  const auto a = opened.batch(1, length, extent.seed), b = opened.batch(1, length, extent.seed + 7);
  const auto tail = [](std::int64_t value) { return at::full({1, 2}, value, at::kLong); };
  const auto count = at::arange(length, at::kLong).unsqueeze(0);
  const Batch packed{.tokens = at::cat({a.tokens, b.tokens, tail(0)}, 1),
                     .labels = at::cat({a.labels, b.labels, tail(-100)}, 1),
                     .positions = at::cat({count, count, tail(0)}, 1),
                     .segments = at::cat({at::zeros_like(a.tokens), at::ones_like(b.tokens), tail(-1)}, 1),
                     .counted = a.counted + b.counted};
  const auto logits = opened.logits(packed);
  for (const auto& [name, at, alone] : {std::tuple("first", std::int64_t{0}, a), std::tuple("second", length, b)}) {
    const double off = relative_error(logits.narrow(1, at, length), opened.logits(alone));
    hold(
        off < kSameSums,
        fmt::format(
            "two documents in a row, as segments 0 and 1: the {} has other logits than alone, by {:.1e} of the largest",
            name, off));
  }
  const double together = opened.loss(packed), apart = opened.loss(a) + opened.loss(b);
  hold(std::abs(together - apart) < 1e-4 * apart,
       fmt::format("two documents in a row have the loss {:.7g}, alone {:.7g}", together, apart));
}

void positions_default(const Subject&, const Opened& opened, const Extent& extent) {
  auto batch = opened.batch(extent);
  const auto plain = opened.logits(batch);
  batch.positions = at::arange(extent.length, at::kLong).unsqueeze(0).repeat({extent.rows, 1});
  hold(relative_error(opened.logits(batch), plain) < kSameSums,
       "positions 0, 1, 2 … and undefined ones give other logits");
}

void the_future_is_hidden(const Subject&, const Opened& opened, const Extent& extent) {
  require_language(opened, "every token sees the whole text");
  const auto batch = opened.batch(extent);
  const auto first = extent.length * 5 / 8;
  auto other = batch;
  other.tokens = batch.tokens.clone();
  other.tokens.narrow(1, first, extent.length - first).fill_(2);
  const double off = relative_error(opened.logits(other).narrow(1, 0, first), opened.logits(batch).narrow(1, 0, first));
  hold(off < kSameSums,
       fmt::format("other tokens after the first {} change their logits, by {:.1e} of the largest", first, off));
}

void cache_changes_nothing(const Subject&, const Opened& opened, const Extent& extent) {
  require_language(opened, "it does not generate");
  const auto batch = opened.batch(extent);
  const auto whole = opened.logits(batch);
  const auto cache = opened.model->cache(extent.rows, extent.length + 2);
  std::vector<at::Tensor> parts;
  std::int64_t done = 0;
  const auto first = extent.length * 6 / 10;
  for (const std::int64_t count : {first, std::int64_t{1}, extent.length - first - 1}) {
    parts.push_back(opened.model->logits({.tokens = batch.tokens.narrow(1, done, count)}, cache.get()));
    done += count;
    hold(cache->length() == done,
         fmt::format("after {} tokens the cache says that it holds {}", done, cache->length()));
  }
  const double off = relative_error(at::cat(parts, 1), whole);
  hold(off < kSameSums,
       fmt::format("tokens as {}, 1 and {} with a cache have other logits than at once, by {:.1e} of the largest",
                   first, extent.length - first - 1, off));
}

void half_precision(const Subject& subject, const Opened& wide, const Extent& extent) {
  const auto narrow = subject.make<Model>();
  const auto said = sentence_of([&] { narrow->open(wide.checkpoint, {.compute = DType::bf16}); });
  if (!said.empty()) throw NotConcerned("it does not compute in bf16: " + said);
  for (const auto& module : wide.modules) {
    if (module.kind == Module::Kind::Attention) continue;  // it holds nothing
    const auto want = wide.model->base(module.name), got = narrow->base(module.name);
    hold(same_bits(got.first, want.first) && (!want.second.defined() || same_bits(got.second, want.second)),
         fmt::format("opened in bf16, base('{}') is not the checkpoint's in full precision", module.name));
  }
  const auto batch = wide.batch(extent);
  const auto logits = narrow->logits(batch, nullptr);
  hold(logits.scalar_type() == at::kFloat, "opened in bf16, its logits are not fp32");
  const double off = relative_error(logits, wide.logits(batch));
  hold(off < 0.1, fmt::format("in bf16 the logits are others than in fp32, by {:.1e} of the largest", off));
  const auto loss = narrow->loss(batch);
  hold(loss.scalar_type() == at::kFloat, "opened in bf16, its loss is not fp32");
}

void missing_weights(const Subject& subject, const Opened& opened, const Extent&) {
  const auto folder = subject.scratch / "incomplete";
  std::filesystem::create_directories(folder);
  std::filesystem::copy_file(opened.checkpoint / "config.json", folder / "config.json",
                             std::filesystem::copy_options::overwrite_existing);
  auto tensors = opened.model->merged();
  hold(!tensors.empty(), "merged() gives no tensor");
  const auto gone = tensors.back().first;
  for (auto& [name, tensor] : tensors) tensor = tensor.detach().contiguous();
  tensors.pop_back();
  if (tensors.empty()) tensors.emplace_back("something.else", at::zeros({1}));
  hf::save_tensors(folder / "model.safetensors", tensors);
  const auto said = sentence_of([&] { subject.make<Model>()->open(folder, {}); });
  hold(!said.empty(), fmt::format("it opens a checkpoint in which '{}' is missing", gone));
  hold(said.find(gone) != std::string::npos,
       fmt::format("it refuses a checkpoint in which '{}' is missing without naming it: {}", gone, said));
}

}  // namespace

Drive drive_model(const Subject& subject) {
  return {[&subject](const Value& params, std::uint64_t run_seed) {
            return std::make_unique<ModelDriver>(subject, params, run_seed);
          },
          false};
}

std::vector<Check> model_checks() {
  std::vector<Check> checks{
      {"accepts", "It accepts its own checkpoint and says no to others without throwing.", accepts_its_own},
      {"modules", "Its modules follow from config.json, and the base's tensors have their shapes.",
       on_checkpoint(modules_agree)},
      {"seeded", "Random weights are a function of the seed.", on_checkpoint(seeded)},
      {"incomplete", "A checkpoint without one of its tensors is refused by the tensor's name.",
       on_checkpoint(missing_weights)},
      {"loss", "The loss is the cross entropy of its logits, summed over counted labels.",
       on_batches(loss_is_cross_entropy, 3, 7)},
      {"padding", "Rows of a batch and padding do not change each other.", on_batches(rows_are_apart, 4, 9)},
      {"segments", "Documents packed into a row do not see each other.", on_batches(segments_are_apart, 1, 6)},
      {"positions", "Undefined positions are 0, 1, 2 and so on.", on_batches(positions_default, 2, 6)},
      {"causal", "A token does not see those after it.", on_batches(the_future_is_hidden, 1, 8, 3)},
      {"bf16", "In bf16 it computes nearly the same, and base() keeps full precision.",
       on_batches(half_precision, 2, 8)},
      {"cache", "A cache changes nothing about what is computed.", on_batches(cache_changes_nothing, 2, 10, 4)},
  };
  for (auto& check : injection_checks()) checks.push_back(std::move(check));
  return checks;
}

}  // namespace hansa::conformance
