// What a trainer promises: it moves what the round lets it move and nothing else, learns, says what it did, ends when it is
// told to, and its channels hold what their layouts say.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <set>

#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <hansa/layouts.hpp>

#include "conformance/desk.hpp"
#include "conformance/driver.hpp"
#include "conformance/probes.hpp"

namespace hansa::conformance {
namespace {

NamedTensors trainer_trace(Desk& desk, const Turn& turn) {
  auto trace = desk.values();
  for (const auto& [name, value] : turn.result.metrics) trace.emplace_back("metric " + name, number(value));
  trace.emplace_back("examples", number(static_cast<double>(turn.result.examples)));
  trace.emplace_back("tokens", number(static_cast<double>(turn.result.tokens)));
  trace.emplace_back("steps", number(static_cast<double>(turn.result.steps)));
  for (const auto& [channel, tensors] : turn.outgoing)
    for (std::size_t i = 0; i < tensors.size(); ++i)
      trace.emplace_back(fmt::format("channel {}, tensor {}", channel.name, i), tensors[i]);
  return trace;
}

class TrainerDriver final : public Driver {
 public:
  TrainerDriver(const Subject& subject, const Workplace& place, const Value& params, std::uint64_t run_seed)
      : company_(place.company),
        desk_(subject, place.bench, *place.adapter, place.task),
        trainer_(subject.make_with<Trainer>(brief(subject, params), run_seed)) {}
  Component& component() override { return *trainer_; }
  NamedTensors play(const Case& input) override {
    desk_.clear();
    auto data = desk_.lessons(input.seed);
    return trainer_trace(
        desk_, take_turn(desk_, *trainer_, data, context(input), watches_inputs ? Watch::Inputs : Watch::Nothing));
  }
  void leave_half_way(const Case& input) override {
    desk_.clear();
    auto data = desk_.lessons(input.seed);
    data.on_next = [&] {
      if (data.batches == 1) throw std::runtime_error("the disk is gone");
    };
    sentence_of([&] { take_turn(desk_, *trainer_, data, context(input)); });
    desk_.bench->model.inject({});
    desk_.bench->model.disable_dropout();
  }
  std::string describe(const Case& input) const override {
    return fmt::format("a round on {} documents, {}, with the seed {}", kLessons,
                       company_ == Company::Alone ? "alone" : "all parameters Shared", 1000 * input.round + input.seed);
  }

 private:
  TrainContext context(const Case& input) { return context_of(desk_, *trainer_, desk_.all_shared(), company_, input); }
  Company company_;
  Desk desk_;
  Instance<Trainer> trainer_;
};

// Documents of a silo, by the size of a case.
constexpr std::size_t kSilos[] = {1, 2, 4, 8, kLessons};

// On a silo of twelve documents; when that breaks, on smaller ones.
std::function<void(const Subject&)> on_silos(void (*check)(const Subject&, Ready&)) {
  return [check](const Subject& subject) {
    const auto place = workplace_for(subject);
    largest_then_smaller(
        subject,
        [&](const Case& input) {
          return fmt::format("a silo of {} document(s), adapter {}", kSilos[input.size], place.adapter->id);
        },
        [&](const Case& input) {
          Ready ready(subject, place, kSilos[input.size]);
          check(subject, ready);
        });
  };
}

// ---- checks ----------------------------------------------------------------------------------------------------------------

void reports_truly(const Subject&, Ready& ready) {
  auto data = ready.desk.lessons();
  const double at_first = mean_loss(ready.desk.bench->model, data);
  auto given = ready.desk.lessons();
  const auto result = take_turn(ready.desk, *ready.trainer, given, ready.context(ready.desk.all_shared())).result;
  const auto planned = ready.trainer->steps(ready.desk.documents);
  hold(result.steps == planned, fmt::format("it reports {} steps; for {} documents steps() says {}", result.steps,
                                            ready.desk.documents, planned));
  hold(result.tokens > 0 && result.tokens <= given.tokens,
       fmt::format("it reports {} tokens; the data gave {} counted labels", result.tokens, given.tokens));
  hold(result.examples > 0 && result.examples <= given.documents,
       fmt::format("it reports {} examples; the data gave {} documents", result.examples, given.documents));
  std::set<std::string> names;
  double loss = -1;
  for (const auto& [name, value] : result.metrics) {
    hold(names.insert(name).second, fmt::format("it reports '{}' twice", name));
    hold(std::isfinite(value), fmt::format("its metric '{}' is {}", name, value));
    if (name == "loss") loss = value;
  }
  hold(names.contains("loss"), "it reports no \"loss\"");
  hold(loss > 0 && loss < 4 * at_first,
       fmt::format("its \"loss\" is {:.5g}; the mean nats per counted token were {:.5g} before the round", loss,
                   at_first));
}

void moves_its_roles(const Subject&, Ready& ready) {
  auto& desk = ready.desk;
  const auto count = desk.layout.tensors.size();
  if (count < 2) throw NotConcerned("the adapter has a single parameter");
  for (const Index frozen : {Index{0}, static_cast<Index>(count - 1)}) {
    desk.clear();
    auto roles = desk.all_shared();
    roles[frozen] = Role::Frozen;
    if (count > 2) roles[count / 2] = Role::Personal;
    const auto before = desk.values();
    auto data = desk.lessons();
    const auto said = sentence_of([&] { take_turn(desk, *ready.trainer, data, ready.context(roles)); });
    if (!said.empty()) throw NotConcerned("it refuses a round in which a parameter is Frozen: " + said);
    const auto after = desk.values();
    hold(same_bits(after[frozen].second, before[frozen].second),
         fmt::format("'{}' is Frozen in this round, and it moved it", before[frozen].first));
    bool moved = false;
    for (std::size_t i = 0; i < count; ++i)
      moved = moved || (i != frozen && !same_bits(after[i].second, before[i].second));
    hold(moved, "it moved none of the Shared parameters");
  }
}

void trained_base_stays(const Subject&, Ready& ready) {
  auto& desk = ready.desk;
  auto& bench = *desk.bench;
  const auto base = bench.base_answers();
  desk.clear();
  bench.model.watch_base();
  ready.turn();
  bench.model.check_base("the training");
  const auto left = bench.answers();
  auto data = desk.lessons();
  const double loss = mean_loss(bench.model, data);
  hold(mean_loss(bench.model, data) == loss, "after a training two passes give two losses: it left dropout on");
  bench.model.inject(desk.adapter->injections());
  hold(relative_error(left, bench.answers()) < 1e-6,
       "after a training the model computes with other injections than the adapter's");
  hold(same_bits(bench.base_answers(), base),
       "without injections the model computes other logits than before the training");
}

void learns_to_prefer(Ready& ready) {
  auto data = ready.desk.lessons();
  auto& model = ready.desk.bench->model;
  const double before = mean_margin(model, data);
  for (Round round = 1; round <= 3; ++round) ready.turn(round);
  const double after = mean_margin(model, data);
  hold(std::isfinite(after) && after > before,
       fmt::format("three rounds on {} pairs take the better answer from {:.6g} nats ahead of the worse one to {:.6g}",
                   ready.desk.documents, before, after));
}

void learns(const Subject&, Ready& ready) {
  if (ready.desk.task == Task::Preference) return learns_to_prefer(ready);
  auto data = ready.desk.lessons();
  auto& model = ready.desk.bench->model;
  const double before = mean_loss(model, data);
  for (Round round = 1; round <= 3; ++round) ready.turn(round);
  const double after = mean_loss(model, data);
  hold(std::isfinite(after) && after < before * (1 + 1e-4),
       fmt::format("three rounds on {} documents take their loss from {:.6g} to {:.6g} nats a token",
                   ready.desk.documents, before, after));
  if (after > before * (1 - 1e-5))
    throw NotConcerned(
        fmt::format("with these parameters three rounds change the loss by {:.1e} only", before - after));
}

void pure_plans(const Subject& subject, Ready& ready) {
  const auto& layout = ready.desk.layout;
  const auto digest = [&](const Trainer& trainer) {
    std::string text = fmt::format("{} {}", trainer.steps(ready.desk.documents), trainer.steps(1));
    for (const auto& channels : {trainer.up(layout), trainer.down(layout)})
      for (const auto& channel : channels)
        text += fmt::format("; {} {} {} {} {}", channel.name, digest_of(channel.layout),
                            static_cast<int>(channel.carry), static_cast<int>(channel.keep), channel.for_trainer);
    return text;
  };
  const auto before = digest(*ready.trainer);
  hold(before == digest(*ready.trainer), "steps(), up() and down() say something else when they are asked again");
  ready.turn();
  hold(before == digest(*ready.trainer), "steps(), up() and down() say something else after a training");
  hold(before == digest(*subject.make<Trainer>()), "steps(), up() and down() say something else in another instance");
  for (const auto& remark : ready.trainer->remarks(layout)) hold(!remark.empty(), "one of its remarks is empty");
}

void channels_fit(const Subject&, Ready& ready) {
  const auto up = ready.trainer->up(ready.desk.layout), down = ready.trainer->down(ready.desk.layout);
  if (up.empty() && down.empty()) throw NotConcerned("it has no channels of its own");
  for (const auto& channels : {up, down}) {
    std::set<std::string> names;
    for (const auto& channel : channels) {
      hold(channel.name != kAdapterChannel && !channel.name.empty() && names.insert(channel.name).second,
           fmt::format("'{}' is no name for a channel of its own, or there twice", channel.name));
      check_layout(channel.layout, fmt::format("channel '{}'", channel.name),
                   channel.carry == Carry::Collect || channel.keep == Keep::Log ? -1 : 1);
    }
  }
  for (const auto& channel : up) {
    if (channel.carry != Carry::Mean) continue;
    const auto* twin = find_channel(down, channel.name);
    hold(twin && twin->layout == channel.layout,
         fmt::format("the Mean channel '{}' does not stand in down() with the same layout", channel.name));
  }
  for (const auto& [channel, tensors] : ready.turn().outgoing) {
    const auto& specs = channel.layout.tensors;
    hold(tensors.size() == specs.size(),
         fmt::format("outgoing('{}') has {} tensors, its layout {}", channel.name, tensors.size(), specs.size()));
    for (std::size_t i = 0; i < specs.size(); ++i) {
      bool fits = tensors[i].dim() == static_cast<std::int64_t>(specs[i].shape.size());
      for (std::size_t d = 0; fits && d < specs[i].shape.size(); ++d)
        fits = specs[i].shape[d] == -1 || specs[i].shape[d] == tensors[i].size(static_cast<std::int64_t>(d));
      hold(fits, fmt::format("outgoing('{}'): '{}' is {}, its layout says {}", channel.name, specs[i].name,
                             shapes_text({tensors[i].sizes().vec()}), shapes_text({specs[i].shape})));
      if (channel.carry != Carry::Collect)
        hold(tensors[i].scalar_type() == at::kFloat,
             fmt::format("outgoing('{}'): '{}' is not fp32", channel.name, specs[i].name));
      if (tensors[i].is_floating_point())
        hold(tensors[i].to(at::kFloat).isfinite().all().item<bool>(),
             fmt::format("outgoing('{}'): '{}' is not finite", channel.name, specs[i].name));
    }
  }
}

void unknown_channel(const Subject&, Ready& ready) {
  const auto said = sentence_of([&] {
    ready.trainer->receive(ready.desk.bench->model, *ready.desk.adapter,
                           {"no such channel", 1, true, {{"x", at::zeros({2})}}});
  });
  hold(!said.empty(), "it takes a channel 'no such channel' and says nothing");
}

void trainer_listens(const Subject& subject, Ready& ready) {
  auto& desk = ready.desk;
  // Passes through the model after the second batch, with and without a request to stop there.
  const auto passes = [&](bool stop) {
    desk.clear();
    std::atomic<bool> cancelled{false};
    const auto trainer = create<Trainer>(subject.registry, subject.component, subject.params,
                                         HostServices{.cancelled = &cancelled, .run_seed = 1});
    auto data = desk.lessons();
    std::uint64_t then = 0;
    data.on_next = [&] {
      if (data.batches != 1) return;
      then = desk.bench->model.passes;
      if (stop) cancelled = true;
    };
    const auto context = context_of(desk, *trainer, desk.all_shared(), ready.place.company, {subject.seed});
    const auto said = sentence_of([&] { take_turn(desk, *trainer, data, context); });
    hold(stop || said.empty(), "it trained before, and now fails: " + said);
    return then == 0 ? std::uint64_t{0} : desk.bench->model.passes - then;
  };
  const auto whole = passes(false);
  constexpr std::uint64_t kFew = 4;
  if (whole <= 2 * kFew)
    throw NotConcerned(
        fmt::format("a round makes {} passes through the model after its second batch: too few to tell", whole));
  const auto left = passes(true);
  hold(left <= std::max(kFew, whole / 4),
       fmt::format(
           "after host.cancelled() became true it made {} passes through the model; the whole rest of the round is {}",
           left, whole));
}

}  // namespace

Drive drive_trainer(const Subject& subject) {
  const auto place = workplace_for(subject);
  return {[&subject, place](const Value& params, std::uint64_t run_seed) {
            return std::make_unique<TrainerDriver>(subject, place, params, run_seed);
          },
          false};
}

std::vector<Check> trainer_checks() {
  return {
      {"reports", "It reports a finite \"loss\" per token, and the steps, tokens and examples that it made.",
       on_silos(reports_truly)},
      {"roles", "It moves parameters that are Shared or Personal, and never one that is Frozen.",
       on_silos(moves_its_roles)},
      {"model", "The base stays as it is; the model is left as it was lent, without dropout.",
       on_silos(trained_base_stays)},
      {"learns", "The loss on the silo does not rise; of pairs of answers, the better one gains.", on_silos(learns)},
      {"pure", "steps(), up() and down() depend on what they are asked and nothing else.", on_silos(pure_plans)},
      {"channels", "What it sends fits the layouts of its channels.", on_silos(channels_fit)},
      {"odd-channel", "A channel that it has no use for is refused.", on_silos(unknown_channel)},
      {"cancelled", "It ends soon after the host asks it to.", on_silos(trainer_listens)},
  };
}

}  // namespace hansa::conformance
