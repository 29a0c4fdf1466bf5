// What a server optimiser promises: it moves the model the way the aggregate points, and keeps what it knows where the host can
// save it.
#include <cmath>

#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <hansa/server_optimizer.hpp>

#include "conformance/driver.hpp"
#include "conformance/probes.hpp"

namespace hansa::conformance {
namespace {

std::vector<std::vector<std::int64_t>> shapes_of(int size) {
  static const std::vector<std::vector<std::int64_t>> by_size[] = {
      {{1}}, {{}, {5}}, {{0}, {3, 4}}, {{64}, {2, 3, 4}}, {{33, 17}, {129}}};
  return by_size[size];
}

// Parameters with their state, as the host keeps them in the version file.
class Standing {
 public:
  Standing(ServerOptimizer& optimizer, const std::vector<std::vector<std::int64_t>>& shapes, std::uint64_t seed) {
    for (std::size_t i = 0; i < shapes.size(); ++i) {
      parameters.push_back(random_tensor(shapes[i], seed * 17 + i));
      auto& own = states.emplace_back();
      for (const auto& spec : optimizer.state({fmt::format("t{}", i), DType::f32, shapes[i]})) {
        hold(spec.dtype == DType::f32, fmt::format("its state '{}' is not fp32", spec.name));
        own.push_back(at::zeros(spec.shape));
      }
    }
  }
  void step(ServerOptimizer& optimizer, std::size_t index, const at::Tensor& delta) {
    optimizer.step(kAdapterChannel, static_cast<Index>(index), parameters[index], delta, states[index]);
  }
  std::vector<at::Tensor> parameters;
  std::vector<std::vector<at::Tensor>> states;
};

class OptimizerDriver final : public Driver {
 public:
  OptimizerDriver(const Subject& subject, const Value& params, std::uint64_t run_seed)
      : optimizer_(subject.make_with<ServerOptimizer>(params, run_seed)) {}
  Component& component() override { return *optimizer_; }
  NamedTensors play(const Case& input) override {
    Standing standing(*optimizer_, shapes_of(input.size), input.seed);
    NamedTensors trace;
    optimizer_->begin_step(input.round);
    for (std::size_t i = 0; i < standing.parameters.size(); ++i) {
      const auto values = random_tensor(standing.parameters[i].sizes().vec(), input.seed + 100 * input.round + i, 0.1);
      if (watches_inputs) {
        Lent lent;
        standing.step(*optimizer_, i, lent.add(values));
        lent.check("the aggregate");
      } else {
        standing.step(*optimizer_, i, values);
      }
      trace.emplace_back(fmt::format("parameter {}", i), standing.parameters[i]);
      for (const auto& state : standing.states[i]) trace.emplace_back(fmt::format("state of parameter {}", i), state);
    }
    return trace;
  }
  void leave_half_way(const Case& input) override { optimizer_->begin_step(input.round); }
  std::string describe(const Case& input) const override {
    return fmt::format("tensors {}", shapes_text(shapes_of(input.size)));
  }

 private:
  Instance<ServerOptimizer> optimizer_;
};

void with_optimizers(const Subject& subject, const std::function<void(ServerOptimizer&, const Case&)>& call) {
  smallest_first(
      subject, [](const Case& input) { return fmt::format("tensors {}", shapes_text(shapes_of(input.size))); },
      [&](const Case& input) { call(*subject.make<ServerOptimizer>(), input); });
}

// Towards the same aggregate for some rounds: whatever the method, the parameter has to have moved that way.
void direction(const Subject& subject) {
  with_optimizers(subject, [](ServerOptimizer& optimizer, const Case& input) {
    const auto shapes = shapes_of(input.size);
    Standing standing(optimizer, shapes, input.seed);
    std::vector<at::Tensor> before, deltas;
    for (std::size_t i = 0; i < shapes.size(); ++i) {
      standing.parameters[i].zero_();  // so that a decay of weights plays no part
      before.push_back(standing.parameters[i].clone());
      deltas.push_back(random_tensor(shapes[i], input.seed + i, 0.1));
    }
    for (Round round = 1; round <= 5; ++round) {
      optimizer.begin_step(round);
      for (std::size_t i = 0; i < shapes.size(); ++i) standing.step(optimizer, i, deltas[i]);
    }
    for (std::size_t i = 0; i < shapes.size(); ++i) {
      const auto moved = standing.parameters[i].sub(before[i]);
      const double along = moved.mul(deltas[i]).sum().item<double>();
      hold(deltas[i].numel() == 0 || along > 0,
           fmt::format("after five rounds of the same aggregate the parameter has moved {:.3g} along it", along));
    }
  });
}

void rest(const Subject& subject) {
  with_optimizers(subject, [](ServerOptimizer& optimizer, const Case& input) {
    const auto shapes = shapes_of(input.size);
    Standing standing(optimizer, shapes, input.seed);
    optimizer.begin_step(1);
    for (std::size_t i = 0; i < shapes.size(); ++i) {
      standing.parameters[i].zero_();
      standing.step(optimizer, i, at::zeros(shapes[i]));
      hold(standing.parameters[i].numel() == 0 || standing.parameters[i].abs().max().item<double>() == 0,
           "a fresh parameter of zero moves although the aggregate is zero");
    }
  });
}

// All it knows of a tensor stands in the state that the host keeps: another order of tensors changes nothing.
void apart(const Subject& subject) {
  with_optimizers(subject, [&](ServerOptimizer& optimizer, const Case& input) {
    const auto shapes = shapes_of(input.size);
    Standing forward(optimizer, shapes, input.seed), backward(optimizer, shapes, input.seed);
    const auto other = subject.make<ServerOptimizer>();
    for (Round round = 1; round <= 3; ++round) {
      optimizer.begin_step(round);
      other->begin_step(round);
      for (std::size_t i = 0; i < shapes.size(); ++i)
        forward.step(optimizer, i, random_tensor(shapes[i], round * 10 + i, 0.1));
      for (std::size_t i = shapes.size(); i-- > 0;)
        backward.step(*other, i, random_tensor(shapes[i], round * 10 + i, 0.1));
    }
    for (std::size_t i = 0; i < shapes.size(); ++i)
      hold(same_bits(forward.parameters[i], backward.parameters[i]),
           "tensors stepped in another order end elsewhere: one leaks into another");
  });
}

void plain(const Subject& subject) {
  if (!subject.declares(HANSA_TRAIT_PLAIN_AVERAGING)) throw NotConcerned("it does not declare PlainAveraging");
  with_optimizers(subject, [](ServerOptimizer& optimizer, const Case& input) {
    const auto shapes = shapes_of(input.size);
    Standing standing(optimizer, shapes, input.seed);
    for (Round round = 1; round <= 3; ++round) {
      optimizer.begin_step(round);
      for (std::size_t i = 0; i < shapes.size(); ++i) {
        const auto delta = random_tensor(shapes[i], round * 10 + i, 0.1);
        const auto want = standing.parameters[i].add(delta);
        standing.step(optimizer, i, delta);
        hold(relative_error(standing.parameters[i], want) < 1e-6,
             "it declares PlainAveraging, but the parameter is not what it was plus the aggregate");
      }
    }
  });
}

// The same parameter and aggregate, with what five rounds left in its state and with a fresh one.
void earlier_aggregates_do_not_matter(const Subject& subject) {
  if (subject.declares(HANSA_TRAIT_KEEPS_HISTORY)) throw NotConcerned("it declares KeepsHistory");
  with_optimizers(subject, [&](ServerOptimizer& optimizer, const Case& input) {
    const auto shapes = shapes_of(input.size);
    Standing used(optimizer, shapes, input.seed), fresh(optimizer, shapes, input.seed);
    const auto other = subject.make<ServerOptimizer>();
    for (Round round = 1; round <= 5; ++round) {
      optimizer.begin_step(round);
      for (std::size_t i = 0; i < shapes.size(); ++i)
        used.step(optimizer, i, random_tensor(shapes[i], round * 10 + i, 0.1));
    }
    optimizer.begin_step(6);
    other->begin_step(6);
    for (std::size_t i = 0; i < shapes.size(); ++i) {
      fresh.parameters[i].copy_(used.parameters[i]);
      const auto delta = random_tensor(shapes[i], 60 + i, 0.1);
      used.step(optimizer, i, delta);
      fresh.step(*other, i, delta);
      hold(same_bits(used.parameters[i], fresh.parameters[i]),
           "it does not declare KeepsHistory, but the aggregates of earlier rounds change its step");
    }
  });
}

}  // namespace

Drive drive_server_optimizer(const Subject& subject) {
  return {[&subject](const Value& params, std::uint64_t run_seed) {
    return std::make_unique<OptimizerDriver>(subject, params, run_seed);
  }};
}

std::vector<Check> server_optimizer_checks() {
  return {
      {"direction", "Parameters move the way the aggregate points.", direction},
      {"rest", "Nothing moves a fresh parameter of zero when the aggregate is zero.", rest},
      {"apart", "What it knows of a tensor stands in the host's state, and tensors do not mix.", apart},
      {"history", "Without KeepsHistory: earlier aggregates do not change a step.", earlier_aggregates_do_not_matter},
      {"plain", "PlainAveraging: it adds the aggregate, and nothing else.", plain},
  };
}

}  // namespace hansa::conformance
