// What every component promises, whatever its kind.
#include <cmath>
#include <limits>

#include <fmt/format.h>

#include "conformance/driver.hpp"
#include "conformance/probes.hpp"
#include "plugin_host/describe.hpp"

namespace hansa::conformance {
namespace {

constexpr std::uint64_t kAllTraits = (HANSA_TRAIT_STATES_SENSITIVITY << 1) - 1;
constexpr Round kRounds = 3;

// Calls with every case, on a driver of its own each time.
void with_each(const Subject& subject, const std::function<void(Driver&, const Case&)>& call, int largest = kLargest) {
  const auto drive = drive_of(subject);
  const auto describer = drive.make(subject.params, subject.seed);
  smallest_first(
      subject, [&](const Case& input) { return describer->describe(input); },
      [&](const Case& input) { call(*drive.make(subject.params, subject.seed), input); }, drive.quick ? largest : 1);
}

NamedTensors play_rounds(Driver& driver, Case input, Round first, Round last) {
  NamedTensors all;
  for (input.round = first; input.round <= last; ++input.round)
    for (auto& [name, value] : driver.play(input))
      all.emplace_back(fmt::format("round {}: {}", input.round, name), value);
  return all;
}

// For checks whose only input is the component itself.
void with_parameters(const Subject& subject, const std::function<void()>& call) {
  with_input(subject, subject.seed, fmt::format("the parameters {}", toml_text(subject.params.raw())), call);
}

void constructs(const Subject& subject) {
  with_parameters(subject, [&] { drive_of(subject).make(subject.params, subject.seed); });
}

// Values that the declaration allows and that are easily forgotten.
std::vector<Value> edges(const HansaParam& param) {
  std::vector<Value> values;
  const bool low = param.flags & HANSA_PARAM_MIN, high = param.flags & HANSA_PARAM_MAX;
  const bool above = param.flags & HANSA_PARAM_MIN_EXCLUDED, below = param.flags & HANSA_PARAM_MAX_EXCLUDED;
  switch (param.type) {
    case HANSA_BOOL: return {Value::boolean(false), Value::boolean(true)};
    case HANSA_CHOICE:
      for (std::uint32_t i = 0; i < param.choice_count; ++i) values.push_back(Value::choice(param.choices[i]));
      return values;
    case HANSA_INT:
    case HANSA_BYTES: {
      const auto whole = [&](double at, int step) {
        const auto value = static_cast<std::int64_t>(at) + step;
        values.push_back(param.type == HANSA_INT ? Value::integer(value)
                                                 : Value::bytes(static_cast<std::uint64_t>(value)));
      };
      // A bound of a million and more stands for "no limit of its own": nobody means to run with it.
      constexpr double kNoLimit = 0x1p20;
      if (low && std::abs(param.minimum) < kNoLimit) whole(param.minimum, above ? 1 : 0);
      if (high && std::abs(param.maximum) < kNoLimit) whole(param.maximum, below ? -1 : 0);
      return values;
    }
    case HANSA_REAL:
    case HANSA_DURATION: {
      const auto real = [&](double value) {
        values.push_back(param.type == HANSA_REAL ? Value::real(value) : Value::seconds(value));
      };
      constexpr double kFar = std::numeric_limits<double>::infinity();
      if (low && std::isfinite(param.minimum)) real(above ? std::nextafter(param.minimum, kFar) : param.minimum);
      if (high && std::isfinite(param.maximum)) real(below ? std::nextafter(param.maximum, -kFar) : param.maximum);
      return values;
    }
    default: return values;
  }
}

void parameters(const Subject& subject) {
  struct Collected {
    std::string text;
  } collected;
  HansaProblems problems{sizeof(HansaProblems), &collected,
                         [](void* to, const char* param, const char* message, const char*) {
                           static_cast<Collected*>(to)->text = fmt::format("{}: {}", param, message);
                         }};
  const auto drive = drive_of(subject);
  for (std::uint32_t i = 0; i < subject.component.param_count; ++i) {
    const auto& param = *subject.component.params[i];
    for (const auto& value : edges(param)) {
      auto params = subject.params;
      params.set(param.name, value);
      collected.text.clear();
      const auto what = fmt::format("{} = {}", param.name, toml_text(value));
      with_input(subject, subject.seed, what, [&] {
        const auto failed =
            subject.component.validate && subject.component.validate(&subject.component, &params.raw(), &problems) != 0;
        hold(!failed, fmt::format("{} lies in the declared range, but its check throws: {}", what, collected.text));
        if (!collected.text.empty()) return;  // refused in words, as it may be beside the other values
        try {
          const auto driver = drive.make(params, subject.seed);
          // A number at its end may mean an hour's work; it has to construct. A choice has to work.
          if (drive.quick || param.type == HANSA_CHOICE || param.type == HANSA_BOOL) driver->play({subject.seed, 1, 1});
        } catch (const NotConcerned&) {
          throw;
        } catch (const std::exception&) {
          throw Broken(fmt::format("{} lies in the declared range and passes its check, but then it fails: {}", what,
                                   plain_message()));
        }
      });
    }
  }
}

void declares_well(const Subject& subject) {
  const auto flags = subject.traits();
  hold((flags & ~kAllTraits) == 0, fmt::format("it sets trait bits that mean nothing: {:#x}", flags & ~kAllTraits));
  hold(flags == subject.traits(), "two questions for its traits gave two answers");
  const auto driver = drive_of(subject).make(subject.params, subject.seed);
  const auto version = driver->component().state_version();
  hold(version == 0 || !(flags & HANSA_TRAIT_STATELESS),
       fmt::format("it declares Stateless, but state_version() is {}", version));
  const auto has = [](const char* text) { return text && *text; };
  hold(has(subject.component.summary), "it has no summary: `hansa plugins list` shows nothing");
  for (std::uint32_t i = 0; i < subject.component.param_count; ++i)
    hold(has(subject.component.params[i]->doc),
         fmt::format("its parameter '{}' has no sentence of its own", subject.component.params[i]->name));
}

void traits(const Subject& subject) {
  with_parameters(subject, [&] { declares_well(subject); });
}

void repeatable(const Subject& subject) {
  const auto drive = drive_of(subject);
  with_each(subject, [&](Driver& first, const Case& input) {
    const auto second = drive.make(subject.params, subject.seed);
    const auto found = difference(play_rounds(first, input, 1, kRounds), play_rounds(*second, input, 1, kRounds));
    hold(found.empty(), "two instances, the same seed and the same inputs: " + found);
  });
}

void generators(const Subject& subject) {
  const auto drive = drive_of(subject);
  with_each(subject, [&](Driver& first, const Case& input) {
    const GlobalGenerators one(1);
    const auto before = play_rounds(first, input, 1, kRounds);
    const auto moved = one.touched();
    const GlobalGenerators other(99);
    const auto second = drive.make(subject.params, subject.seed);
    const auto found = difference(before, play_rounds(*second, input, 1, kRounds));
    hold(found.empty(), "with global generators in another state: " + found);
    hold(moved.empty(), fmt::format("it draws from {}, which everybody shares", moved));
  });
}

void inputs(const Subject& subject) {
  with_each(subject, [](Driver& driver, const Case& input) {
    driver.watches_inputs = true;
    play_rounds(driver, input, 1, kRounds);
  });
}

// What the instance does after a save and a load is what it would have done without.
void state(const Subject& subject) {
  const auto drive = drive_of(subject);
  with_each(subject, [&](Driver& undisturbed, const Case& input) {
    play_rounds(undisturbed, input, 1, kRounds);
    const auto version = undisturbed.component().state_version();
    const auto restored = drive.make(subject.params, subject.seed);
    SavedState saved;
    undisturbed.component().save(saved);
    if (version != 0) restored->component().load(saved, version);
    const auto want = play_rounds(undisturbed, input, kRounds + 1, 2 * kRounds);
    const auto found = difference(play_rounds(*restored, input, kRounds + 1, 2 * kRounds), want);
    hold(found.empty(), version == 0 ? "it says that it has no state, but earlier rounds change what it does: " + found
                                     : "after save and load it goes on differently: " + found);
  });
}

void foreign_state(const Subject& subject) {
  const auto driver = drive_of(subject).make(subject.params, subject.seed);
  if (driver->component().state_version() == 0) throw NotConcerned("it is stateless");
  const auto refuses = [&](std::uint32_t version) {
    try {
      drive_of(subject).make(subject.params, subject.seed)->component().load(SavedState(), version);
    } catch (const std::exception&) {
      return true;
    }
    return false;
  };
  const auto later = driver->component().state_version() + 1;
  with_input(subject, subject.seed, fmt::format("an empty state of version {}", later),
             [&] { hold(refuses(later), "it loads a state of a later version, and says nothing"); });
}

void half_way(const Subject& subject) {
  with_each(subject, [&](Driver& driver, const Case& input) {
    driver.leave_half_way(input);
    drive_of(subject).make(subject.params, subject.seed)->play(input);
  });
}

void growth(const Subject& subject) {
  const auto drive = drive_of(subject);
  const int cycles = drive.quick ? 1000 : 20;
  // Bytes a cycle: what a heap gains by falling to pieces. A model's cycle makes thousands of allocations.
  const double allowed = drive.quick ? 48 : 4096;
  const Case input{subject.seed, 1, 1};
  const auto cycle = [&] {
    const auto driver = drive.make(subject.params, subject.seed);
    play_rounds(*driver, input, 1, 1);
    SavedState saved;
    driver->component().save(saved);
  };
  with_input(subject, subject.seed, drive.make(subject.params, subject.seed)->describe(input), [&] {
    for (int i = 0; i < cycles / 5; ++i) cycle();  // caches fill
    const auto before = static_cast<double>(heap_in_use());
    for (int i = 0; i < cycles; ++i) cycle();
    const double grown = (static_cast<double>(heap_in_use()) - before) / cycles;
    hold(
        grown <= allowed,
        fmt::format("create, use, destroy: memory grows by {:.0f} bytes each time, over {} times; {:.0f} pass as noise",
                    grown, cycles, allowed));
  });
}

void threads_stay(const Subject& subject) {
  with_each(subject, [&](Driver& driver, const Case& input) {
    driver.play(input);  // LibTorch's own threads are there now
    const auto before = threads();
    const auto another = drive_of(subject).make(subject.params, subject.seed);
    play_rounds(*another, input, 1, kRounds);
    hold(threads() <= before,
         fmt::format("it started {} thread(s) of its own; host.parallel_for runs on the host's", threads() - before));
  });
}

void finite(const Subject& subject) {
  with_each(subject, [](Driver& driver, const Case& input) {
    for (const auto& [name, value] : play_rounds(driver, input, 1, kRounds))
      hold(!value.is_floating_point() || value.numel() == 0 || value.to(at::kFloat).isfinite().all().item<bool>(),
           fmt::format("'{}' is not finite although every input was", name));
  });
}

}  // namespace

std::vector<Check> component_checks() {
  return {
      {"constructs", "It can be made with these parameters.", constructs},
      {"traits", "What it declares is well-formed: known traits, a sentence for each parameter.", traits},
      {"parameters", "Each parameter works at both ends of its range, and each choice.", parameters},
      {"inputs", "It writes to no tensor that it was lent, and holds none after the call.", inputs},
      {"repeatable", "The same seed and inputs give the same bits.", repeatable},
      {"generators", "It draws from no generator that others share.", generators},
      {"state", "What is saved and loaded goes on as if nothing had happened.", state},
      {"foreign-state", "A state that it does not know is refused.", foreign_state},
      {"finite", "Finite inputs give finite results.", finite},
      {"half-way", "It can be destroyed in the middle of a round.", half_way},
      {"threads", "It starts no threads of its own.", threads_stay},
      {"growth", "Created, used and destroyed a thousand times (twenty where a model is part of it), memory stays put.",
       growth},
  };
}

}  // namespace hansa::conformance
