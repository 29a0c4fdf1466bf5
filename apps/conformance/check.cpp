#include "conformance/check.hpp"

#include <array>
#include <exception>
#include <utility>

#include <fmt/format.h>

#include "conformance/driver.hpp"

namespace hansa::conformance {
namespace {

struct Kind {
  std::string_view name;
  Drive (*drive)(const Subject&);
  std::vector<Check> (*checks)();
};
constexpr std::array<Kind, 11> kKinds{{
    {"aggregator", drive_aggregator, aggregator_checks},
    {"compressor", drive_compressor, compressor_checks},
    {"privacy", drive_privacy, privacy_checks},
    {"server_optimizer", drive_server_optimizer, server_optimizer_checks},
    {"selector", drive_selector, selector_checks},
    {"round_policy", drive_round_policy, round_policy_checks},
    {"model", drive_model, model_checks},
    {"adapter", drive_adapter, adapter_checks},
    {"trainer", drive_trainer, trainer_checks},
    {"data_source", drive_data_source, data_source_checks},
    {"evaluator", drive_evaluator, evaluator_checks},
}};
const Kind& kind_of(const Subject& subject) {
  for (const auto& kind : kKinds)
    if (kind.name == subject.kind()) return kind;
  throw NotConcerned(fmt::format("there are no checks for kind '{}'", subject.kind()));
}

}  // namespace

void hold(bool holds, const std::string& what) {
  if (!holds) throw Broken(what);
}

Drive drive_of(const Subject& subject) { return kind_of(subject).drive(subject); }

std::vector<Check> checks_for(const Subject& subject) {
  auto checks = component_checks();
  for (auto& check : kind_of(subject).checks()) checks.push_back(std::move(check));
  return checks;
}

void with_input(const Subject& subject, std::uint64_t seed, const std::string& input,
                const std::function<void()>& call) {
  subject.trying(seed, input);
  try {
    call();
  } catch (Broken& broken) {
    if (!broken.seed) broken.seed = seed;
    if (broken.input.empty()) broken.input = input;
    throw;
  } catch (const NotConcerned&) {
    throw;
  } catch (...) {
    throw Broken(fmt::format("it failed: {}", plain_message()), seed, input);
  }
}

void smallest_first(const Subject& subject, const Describe& describe, const Call& call, int largest) {
  constexpr std::uint64_t kSeeds = 3;
  for (int size = 0; size <= largest; ++size)
    for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
      const Case input{seed, size, 1};
      with_input(subject, seed, describe(input), [&] { call(input); });
    }
}

void largest_then_smaller(const Subject& subject, const Describe& describe, const Call& call, int largest) {
  const auto attempt = [&](int size, const Call& made) {
    const Case input{subject.seed, size, 1};
    with_input(subject, subject.seed, describe(input), [&] { made(input); });
  };
  try {
    attempt(largest, call);
  } catch (const Broken&) {
    const auto smaller = [&](const Case& input) {
      try {
        call(input);
      } catch (const Broken&) {
        throw;
      } catch (const std::exception&) {  // too small for it, or to tell
      }
    };
    for (int size = 0; size < largest; ++size) attempt(size, smaller);
    throw;
  }
}

}  // namespace hansa::conformance
