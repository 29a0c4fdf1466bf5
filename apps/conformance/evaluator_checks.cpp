// What an evaluator promises: sums that can be added over silos and mean what their names say, from the model and the data
// alone, with the model left as it was.
#include <atomic>
#include <cmath>
#include <map>
#include <set>

#include <ATen/core/grad_mode.h>
#include <fmt/format.h>
#include <hansa/evaluator.hpp>

#include "conformance/driver.hpp"
#include "conformance/partners.hpp"
#include "conformance/probes.hpp"

namespace hansa::conformance {
namespace {

// A model, with an adapter in it that has moved, where the registry has one: an evaluation must see it and leave it there.
class Exam {
 public:
  explicit Exam(const Subject& subject) : bench(subject), seed_(subject.seed) {
    for (const auto* component : candidates(subject, "adapter")) {
      try {
        adapter = make_partner<Adapter>(subject, *component);
        layout = adapter->layout(bench.modules, 0);
        adapter->create(bench.model, bench.modules, 0, 5);
        const at::NoGradGuard no_grad;
        for (Index i = 0; i < layout.tensors.size(); ++i)
          adapter->parameter(i).add_(random_tensor(layout.tensors[i].shape, seed_ + i, 0.05));
        put_in();
        return;
      } catch (const std::exception&) {
        adapter.reset();  // not for this model
      }
    }
    put_in();
  }
  void put_in() {
    bench.model.disable_dropout();
    bench.model.inject(adapter ? adapter->injections() : std::vector<Injection>{});
  }
  Lessons lessons(std::size_t first, std::size_t count) const {
    return {bench.real->vocabulary(), seed_ + first, count};
  }
  Metrics ask(Evaluator& evaluator, DataSource& data) {  // as a node does
    const at::NoGradGuard no_grad;
    data.rewind();
    return evaluator.evaluate(bench.model, data);
  }
  Metrics ask(Evaluator& evaluator, std::size_t first, std::size_t count) {
    auto data = lessons(first, count);
    return ask(evaluator, data);
  }

  Bench bench;
  Instance<Adapter> adapter;
  Layout layout;

 private:
  std::uint64_t seed_;
};

NamedTensors evaluator_trace(const Metrics& metrics) {
  NamedTensors trace;
  for (const auto& [name, value] : metrics) trace.emplace_back(name, number(value));
  return trace;
}

class EvaluatorDriver final : public Driver {
 public:
  EvaluatorDriver(const Subject& subject, std::shared_ptr<Exam> exam, const Value& params, std::uint64_t run_seed)
      : exam_(std::move(exam)), evaluator_(subject.make_with<Evaluator>(params, run_seed)) {}
  Component& component() override { return *evaluator_; }
  NamedTensors play(const Case& input) override {
    exam_->put_in();
    if (watches_inputs) exam_->bench.model.watch_base();
    auto trace = evaluator_trace(exam_->ask(*evaluator_, input.seed + input.round, count(input)));
    if (watches_inputs) exam_->bench.model.check_base("it");
    return trace;
  }
  void leave_half_way(const Case& input) override {
    auto data = exam_->lessons(input.seed, 100);
    data.on_next = [&] {
      if (data.batches == 1) throw std::runtime_error("the disk is gone");
    };
    sentence_of([&] { exam_->ask(*evaluator_, data); });
  }
  std::string describe(const Case& input) const override { return fmt::format("a silo of {} documents", count(input)); }

 private:
  static std::size_t count(const Case& input) { return 1 + 4 * static_cast<std::size_t>(input.size); }
  std::shared_ptr<Exam> exam_;
  Instance<Evaluator> evaluator_;
};

// On a silo of `most` documents; when that breaks, on smaller ones.
std::function<void(const Subject&)> on_documents(void (*check)(const Subject&, Exam&, std::size_t), std::size_t most) {
  return [check, most](const Subject& subject) {
    const auto count = [most](const Case& input) {
      return std::max<std::size_t>(1, most * static_cast<std::size_t>(input.size) / kLargest);
    };
    largest_then_smaller(
        subject, [&](const Case& input) { return fmt::format("a silo of {} document(s)", count(input)); },
        [&](const Case& input) {
          Exam exam(subject);
          check(subject, exam, count(input));
        });
  };
}

// ---- checks ----------------------------------------------------------------------------------------------------------------

void well_formed(const Subject& subject, Exam& exam, std::size_t count) {
  const auto evaluator = subject.make<Evaluator>();
  const auto metrics = exam.ask(*evaluator, 0, count);
  hold(!metrics.empty(), "it measures nothing");
  std::set<std::string> names;
  for (const auto& [name, value] : metrics) {
    hold(!name.empty() && names.insert(name).second,
         fmt::format("it gives '{}' twice, or a number without a name", name));
    hold(std::isfinite(value), fmt::format("'{}' is {}", name, value));
  }
}

// Names that the host knows mean what it takes them for.
void known_sums(const Subject& subject, Exam& exam, std::size_t count) {
  const auto evaluator = subject.make<Evaluator>();
  auto data = exam.lessons(0, count);
  const double nats = mean_loss(exam.bench.model, data) * static_cast<double>(data.tokens);
  const std::map<std::string, double> want{{"nats", nats},
                                           {"tokens", static_cast<double>(data.tokens)},
                                           {"bytes", static_cast<double>(data.bytes)},
                                           {"documents", static_cast<double>(data.documents)}};
  bool any = false;
  for (const auto& [name, value] : exam.ask(*evaluator, 0, count)) {
    const auto known = want.find(name);
    if (known == want.end()) continue;
    any = true;
    hold(std::abs(value - known->second) <= 1e-4 * known->second,
         fmt::format("\"{}\" of a silo with {} documents is {:.7g}; summed over its batches it is {:.7g}", name,
                     data.documents, value, known->second));
  }
  if (!any) throw NotConcerned("it gives none of \"nats\", \"tokens\", \"bytes\" and \"documents\"");
}

void adds_up(const Subject& subject) {
  Exam exam(subject);
  for (const auto& [a, b] : {std::pair<std::size_t, std::size_t>{1, 1}, {9, 4}, {20, 33}}) {
    with_input(subject, subject.seed, fmt::format("silos of {} and {} documents", a, b), [&, a = a, b = b] {
      const auto evaluator = subject.make<Evaluator>();
      const auto first = exam.ask(*evaluator, 0, a), second = exam.ask(*evaluator, a, b),
                 both = exam.ask(*evaluator, 0, a + b);
      hold(first.size() == both.size() && second.size() == both.size(), "silos of another size give other names");
      for (std::size_t i = 0; i < both.size(); ++i) {
        hold(first[i].first == both[i].first && second[i].first == both[i].first,
             "silos of another size give other names, or another order");
        const double sum = first[i].second + second[i].second;
        hold(std::abs(sum - both[i].second) <= 1e-4 * std::max(1.0, std::abs(both[i].second)),
             fmt::format("'{}' of silos with {} and {} documents is {:.7g} and {:.7g}; of all {} together {:.7g}, and "
                         "not their sum",
                         both[i].first, a, b, first[i].second, second[i].second, a + b, both[i].second));
      }
    });
  }
}

void asks_again(const Subject& subject, Exam& exam, std::size_t count) {
  const auto evaluator = subject.make<Evaluator>();
  const auto first = exam.ask(*evaluator, 0, count);
  const auto other = exam.ask(*evaluator, 40, 5);
  auto found = difference(evaluator_trace(exam.ask(*evaluator, 0, count)), evaluator_trace(first));
  hold(found.empty(), "asked again about the same silo, with another in between: " + found);
  found = difference(evaluator_trace(exam.ask(*subject.make<Evaluator>(), 40, 5)), evaluator_trace(other));
  hold(found.empty(), "a fresh instance, asked about the second silo only: " + found);
}

void model_stays(const Subject& subject, Exam& exam, std::size_t count) {
  const auto evaluator = subject.make<Evaluator>();
  auto& bench = exam.bench;
  auto data = exam.lessons(0, 6);
  const auto answers = bench.answers();
  const double loss = mean_loss(bench.model, data);
  NamedTensors before;
  for (Index i = 0; i < exam.layout.tensors.size(); ++i)
    before.emplace_back(exam.layout.tensors[i].name, exam.adapter->parameter(i).detach().clone());
  bench.model.watch_base();
  exam.ask(*evaluator, 0, count);
  bench.model.check_base("it");
  for (Index i = 0; i < exam.layout.tensors.size(); ++i) {
    hold(same_bits(exam.adapter->parameter(i).detach(), before[i].second),
         fmt::format("it changed the adapter's '{}'", before[i].first));
    hold(exam.adapter->parameter(i).requires_grad(),
         fmt::format("after it '{}' asks for no gradient any more", before[i].first));
  }
  hold(same_bits(bench.answers(), answers),
       "after it the model computes other logits than before: its injections or weights are others");
  hold(mean_loss(bench.model, data) == loss && mean_loss(bench.model, data) == loss,
       "after it the model has another loss than before: dropout is on, or a weight is another");
}

void listens(const Subject& subject, Exam& exam, std::size_t count) {
  const auto passes = [&](bool stop) {
    std::atomic<bool> cancelled{false};
    const auto evaluator = create<Evaluator>(subject.registry, subject.component, subject.params,
                                             HostServices{.cancelled = &cancelled, .run_seed = 1});
    auto data = exam.lessons(0, count);
    std::uint64_t then = 0;
    data.on_next = [&] {
      if (data.batches != 1) return;
      then = exam.bench.model.passes;
      if (stop) cancelled = true;
    };
    sentence_of([&] { exam.ask(*evaluator, data); });
    return then == 0 ? std::uint64_t{0} : exam.bench.model.passes - then;
  };
  const auto whole = passes(false);
  constexpr std::uint64_t kFew = 4;
  if (whole <= 2 * kFew)
    throw NotConcerned(fmt::format(
        "{} documents take it {} passes through the model after the second batch: too few to tell", count, whole));
  const auto left = passes(true);
  hold(left <= std::max(kFew, whole / 4),
       fmt::format("after host.cancelled() became true it made {} passes through the model; the whole rest is {}", left,
                   whole));
}

}  // namespace

Drive drive_evaluator(const Subject& subject) {
  const auto exam = std::make_shared<Exam>(subject);
  return {[&subject, exam](const Value& params, std::uint64_t run_seed) {
            return std::make_unique<EvaluatorDriver>(subject, exam, params, run_seed);
          },
          false};
}

std::vector<Check> evaluator_checks() {
  return {
      {"metrics", "It gives finite numbers, each under a name of its own.", on_documents(well_formed, 9)},
      {"names", "\"nats\", \"tokens\", \"bytes\" and \"documents\" are the sums that the host takes them for.",
       on_documents(known_sums, 21)},
      {"sums", "What it gives for two silos adds up to what it gives for both as one.", adds_up},
      {"again", "The same model and data give the same, whatever was asked before.", on_documents(asks_again, 9)},
      {"model", "The model and the adapter in it are left as they were.", on_documents(model_stays, 9)},
      {"cancelled", "It ends soon after the host asks it to.", on_documents(listens, 400)},
  };
}

}  // namespace hansa::conformance
