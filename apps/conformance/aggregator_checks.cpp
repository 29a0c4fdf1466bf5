// What an aggregator promises by its interface and by the traits that it declares.
#include <algorithm>

#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <factors/pairs.hpp>
#include <hansa/layouts.hpp>

#include "conformance/aggregator_checks.hpp"
#include "conformance/driver.hpp"

namespace hansa::conformance {
namespace {

constexpr double kClose = 1e-5;  // fp32 sums in another order

CohortShape shape_of(const Subject& subject, const Case& input, std::size_t fewest) {
  const auto groups = subject.groups();
  if (!groups.empty() && groups.find(factors::kPairKind) == std::string::npos)
    throw NotConcerned(
        fmt::format("it asks for tensors in groups of kind '{}', of which these checks have none", groups));
  return cohort_shape(input, fewest, groups, subject.declares(HANSA_TRAIT_RANK_AWARE));
}
Cohort cohort_of(const Subject& subject, const Case& input, std::size_t fewest) {
  return Cohort(shape_of(subject, input, fewest), subject.seed * 31 + input.seed);
}

// A rule may refuse a cohort that is too small for what it withstands: the fewest clients that it takes.
std::size_t fewest_clients(const Subject& subject, const Value& params) {
  constexpr std::size_t kMost = 16;
  std::string why;
  for (std::size_t clients = 1; clients <= kMost; ++clients) {
    try {
      auto cohort = cohort_of(subject, {}, clients);
      Recorded results;
      play_round(*subject.make_with<Aggregator>(params), cohort, 1, results);
      return clients;
    } catch (const Broken&) {
      return clients;  // a check will say it
    } catch (const PluginFailure&) {
      throw;  // of its constructor
    } catch (const NotConcerned&) {
      throw;
    } catch (const std::exception& e) {
      why = e.what();
    }
  }
  throw Broken(fmt::format("it refuses every cohort of up to {} clients: {}", kMost, why), subject.seed,
               fmt::format("1 to {} clients, else as in {}", kMost, describe(shape_of(subject, {}, 1))));
}

class AggregatorDriver final : public Driver {
 public:
  AggregatorDriver(const Subject& subject, const Value& params, std::uint64_t run_seed, std::size_t fewest)
      : subject_(subject), rule_(subject.make_with<Aggregator>(params, run_seed)), fewest_(fewest) {}
  Component& component() override { return *rule_; }
  NamedTensors play(const Case& input) override {
    auto cohort = cohort_of(subject_, {input.seed + 1000 * input.round, input.size, input.round}, fewest_);
    Recorded results;
    Lent lent;
    const Lending watched{[&](const at::Tensor& tensor) { return lent.add(tensor); },
                          [&] { lent.check("a client's tensor"); }};
    const auto metrics = play_round(*rule_, cohort, input.round, results, watches_inputs ? &watched : nullptr);
    auto trace = results.trace();
    for (const auto& [name, value] : metrics) trace.emplace_back(name, number(value));
    return trace;
  }
  void leave_half_way(const Case& input) override {
    auto cohort = cohort_of(subject_, input, fewest_);
    Recorded results;
    play_round(*rule_, cohort, input.round, results, nullptr, Whole::HalfOfIt);
  }
  std::string describe(const Case& input) const override {
    return conformance::describe(shape_of(subject_, input, fewest_));
  }

 private:
  const Subject& subject_;
  Instance<Aggregator> rule_;
  std::size_t fewest_;
};

}  // namespace

// ---- what the checks below share -----------------------------------------------------------------------------------------

void with_cohorts(const Subject& subject, const std::function<void(Cohort&)>& call) {
  const auto fewest = fewest_clients(subject, subject.params);
  smallest_first(
      subject, [&](const Case& input) { return describe(shape_of(subject, input, fewest)); },
      [&](const Case& input) {
        auto cohort = cohort_of(subject, input, fewest);
        call(cohort);
      });
}
Changes changes_of(const Subject& subject, Cohort& cohort) {
  const auto rule = subject.make<Aggregator>();
  Recorded results;
  play_round(*rule, cohort, 1, results);
  return results.changes();
}
void same_changes(const Changes& got, const Changes& want, const std::string& what) {
  for (const auto& [name, value] : want) {
    hold(got.contains(name), fmt::format("{}: '{}' is missing", what, name));
    const double error = relative_error(got.at(name), value);
    hold(error <= kClose, fmt::format("{}: '{}' is off by {:.3g} of its largest element", what, name, error));
  }
}
void needs(const Subject& subject, std::uint64_t trait, const char* name) {
  if (!subject.declares(trait)) throw NotConcerned(fmt::format("it does not declare {}", name));
}

namespace {

double weight_of(Cohort& cohort) {
  double all = 0;
  for (const auto& client : cohort.clients()) all += client.who.weight;
  return all;
}
// The naive reference, in double: sum of w times delta, over `divide`.
Changes naive_sum(Cohort& cohort, double divide) {
  Changes sums;
  for (const auto& client : cohort.clients())
    for (const auto& [name, delta] : client.deltas) {
      auto& sum = sums[name];
      if (!sum.defined()) sum = at::zeros(delta.sizes(), at::TensorOptions().dtype(at::kDouble));
      sum.add_(delta.to(at::kDouble), client.who.weight / divide);
    }
  return sums;
}
// What travels this round only: a rule may hold others back.
Changes only(const Changes& all, const Changes& names) {
  Changes some;
  for (const auto& [name, value] : all)
    if (names.contains(name)) some[name] = value;
  return some;
}

// ---- checks --------------------------------------------------------------------------------------------------------------

void results(const Subject& subject) {
  with_cohorts(subject, [&](Cohort& cohort) {
    const auto rule = subject.make<Aggregator>();
    for (Round round = 1; round <= 4; ++round) {
      Recorded recorded;
      play_round(*rule, cohort, round, recorded);
      hold(recorded.wrong().empty(), recorded.wrong());
    }
  });
}

void exchange(const Subject& subject) {
  with_cohorts(subject, [&](Cohort& cohort) {
    const auto rule = subject.make<Aggregator>();
    const auto asked = [&](Round round) {
      const auto plan = cohort.plan(round);
      std::string all;
      for (const auto& node : plan.cohort) {
        const auto one = rule->exchange(cohort.layout(node.rank), plan, node);
        all += one.view + ':';
        for (auto role : one.roles) all += static_cast<char>('0' + static_cast<int>(role));
        for (const auto& channel : one.up) all += '^' + channel.name;
        for (const auto& channel : one.down) all += '_' + channel.name;
        hold(!find_channel(one.up, kAdapterChannel) && !find_channel(one.down, kAdapterChannel),
             "exchange() names the channel 'adapter', which the host adds");
      }
      return all;
    };
    const auto first = asked(1), second = asked(2);
    Recorded recorded;
    play_round(*rule, cohort, 1, recorded);
    hold(asked(1) == first && asked(2) == second, "exchange() gives something else after a round; it has to be pure");
  });
}

void order(const Subject& subject) {
  needs(subject, HANSA_TRAIT_ORDER_FREE, "OrderFree");
  with_cohorts(subject, [&](Cohort& cohort) {
    const auto want = changes_of(subject, cohort);
    std::reverse(cohort.clients().begin(), cohort.clients().end());  // who sent what stays
    same_changes(changes_of(subject, cohort), want, "the same clients in another order");
  });
}

void weights(const Subject& subject) {
  with_cohorts(subject, [&](Cohort& cohort) {
    auto want = changes_of(subject, cohort);
    for (auto& client : cohort.clients()) client.who.weight *= 4;
    if (subject.declares(HANSA_TRAIT_ADDITIVE))
      for (auto& [name, value] : want) value = value.mul(4);
    same_changes(changes_of(subject, cohort), want,
                 subject.declares(HANSA_TRAIT_ADDITIVE) ? "all weights times 4 should give 4 times the sum"
                                                        : "all weights times 4 should change nothing");
  });
}

void weight_counts(const Subject& subject) {
  needs(subject, HANSA_TRAIT_ADDITIVE, "Additive");
  with_cohorts(subject, [&](Cohort& cohort) {
    const auto twice = cohort.clients().back();
    auto again = cohort;
    cohort.clients().back().who.weight *= 2;
    again.clients().push_back(twice);
    again.clients().back().who.node += 1;
    same_changes(changes_of(subject, again), changes_of(subject, cohort),
                 "a client of weight 2w should count as two clients of weight w");
  });
}

void reference(const Subject& subject) {
  const bool additive = subject.declares(HANSA_TRAIT_ADDITIVE);
  if (!additive) needs(subject, HANSA_TRAIT_ELEMENTWISE_MEAN, "Additive or ElementwiseMean");
  with_cohorts(subject, [&](Cohort& cohort) {
    if (!additive) {  // a mean of equals is what they are
      const auto same = cohort.clients().front().deltas;
      for (auto& client : cohort.clients()) client.deltas = same;
    }
    const auto got = changes_of(subject, cohort);
    same_changes(got, only(naive_sum(cohort, additive ? 1 : weight_of(cohort)), got),
                 additive ? "against the naive weighted sum" : "all clients send the same");
  });
}

void merged(const Subject& subject) {
  if (subject.declares(HANSA_TRAIT_NEEDS_INDIVIDUALS)) throw NotConcerned("it declares NeedsIndividuals");
  with_cohorts(subject, [&](Cohort& cohort) {
    const auto want = changes_of(subject, cohort);
    auto one = cohort;
    const double weight = weight_of(cohort);
    const auto mean = naive_sum(cohort, weight);
    one.clients().resize(1);
    one.clients()[0].who.weight = weight;
    for (auto& [name, delta] : one.clients()[0].deltas) delta = mean.at(name).to(at::kFloat);
    same_changes(changes_of(subject, one), want, "the clients' sum as one client should give the same");
  });
}

CohortShape large_shape(const Subject& subject, const Case& input) {
  constexpr std::int64_t kSide = 1024, kRank = 64;  // 4 MB a lone tensor, 256 kB one of a pair
  CohortShape shape;
  shape.ranks.assign(std::size_t{1} << input.size, 0);
  shape.rank = kRank;
  if (subject.groups().empty())
    shape.lone = {{kSide, kSide}};
  else
    shape.low_rank = {{kSide, kSide}};
  return shape;
}

void holds_its_workspace(const Subject& subject, const Case& input) {
  constexpr std::uint64_t kSlack = 128 << 10;
  const auto shape = large_shape(subject, input);
  Cohort cohort(shape, subject.seed);
  const auto rule = subject.make<Aggregator>();
  const auto layout = cohort.layout();
  const auto stated = rule->workspace(layout, layout.groups[0], shape.ranks.size());
  Recorded nothing(Recorded::Keep::Nothing);
  const auto fail = [&](std::uint64_t held, const char* of) {
    throw Broken(fmt::format("it states a workspace of {:.1f} MB and holds {:.1f} MB {}",
                             static_cast<double>(stated) / 1e6, static_cast<double>(held) / 1e6, of));
  };
  play_round(*rule, cohort, 1, nothing);  // what is kept between rounds is no workspace
  // Tensors from LibTorch's allocator; whatever else it holds when it asks for the next tensor from the heap.
  std::optional<TensorMemory> memory;
  std::uint64_t heap_before = 0, heap = 0;
  const Lending copies{[&](const at::Tensor& tensor) {
                         auto lent = tensor.use_count() == 1 ? tensor : tensor.clone();
                         heap = std::max(heap, heap_in_use());
                         return lent;
                       },
                       [] {},
                       [&] {
                         heap = heap_before = heap_in_use();
                         memory.emplace();
                       }};
  play_round(*rule, cohort, 2, nothing, &copies);
  if (memory->peak() > stated + kSlack) fail(memory->peak(), "in tensors");
  if (heap - heap_before > stated + kSlack) fail(heap - heap_before, "in all");
}

void workspace(const Subject& subject) {
  largest_then_smaller(
      subject, [&](const Case& input) { return describe(large_shape(subject, input)); },
      [&](const Case& input) { holds_its_workspace(subject, input); });
}

}  // namespace

Drive drive_aggregator(const Subject& subject) {
  const auto usual = fewest_clients(subject, subject.params);
  return {[&subject, usual](const Value& params, std::uint64_t run_seed) {
    const auto fewest = equal(params, subject.params) ? usual : fewest_clients(subject, params);
    return std::make_unique<AggregatorDriver>(subject, params, run_seed, fewest);
  }};
}

std::vector<Check> aggregator_checks() {
  std::vector<Check> checks{
      {"results", "Every member of every group is put once, in its shape, as fp32.", results},
      {"exchange", "exchange() is a pure function of the plan, and leaves the channel \"adapter\" to the host.",
       exchange},
      {"order", "OrderFree: the clients' order does not matter.", order},
      {"weights", "Weights are relative; of an Additive rule's sum, linear.", weights},
      {"weight-counts", "Additive: a client of twice the weight counts as two.", weight_counts},
      {"reference", "Additive: the naive weighted sum. ElementwiseMean: the mean of equals is what they are.",
       reference},
      {"merged", "Without NeedsIndividuals: the sum of the clients as one client gives the same.", merged},
      {"workspace", "It holds no more than the workspace that it states.", workspace},
  };
  for (auto& check : aggregator_trait_checks()) checks.push_back(std::move(check));
  return checks;
}

}  // namespace hansa::conformance
