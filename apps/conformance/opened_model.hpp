// An open model that is looked at, and what can be put into it. One thread.
#pragma once
#include <string>
#include <vector>

#include <ATen/core/grad_mode.h>

#include "conformance/partners.hpp"

namespace hansa::conformance {

inline constexpr double kSameSums = 2e-5;  // relative: fp32, the same sums in another order

struct Opened {
  explicit Opened(const Subject& subject) : Opened(subject, subject.make<Model>()) {}
  Opened(const Subject& subject, Instance<Model> made)
      : model(std::move(made)), checkpoint(checkpoint_for(subject, *model)) {
    model->open(checkpoint, {});
    modules = model->modules(checkpoint);
  }
  Batch batch(std::int64_t rows, std::int64_t length, std::uint64_t seed) const {
    return made_up_batch(rows, length, model->vocabulary(), seed);
  }
  at::Tensor logits(const Batch& of) const { return model->logits(of, nullptr); }
  double loss(const Batch& of) const {
    const at::NoGradGuard no_grad;
    return model->loss(of).item<double>();
  }
  Instance<Model> model;
  std::filesystem::path checkpoint;
  std::vector<Module> modules;
};

// Random values, or those that change nothing: B = 0, the base's own weights.
enum class Fill { Nothing, Something };
Injection pair_for(const Module&, Fill, std::uint64_t seed, double dropout = 0);
// One injection for each module that takes any: a pair where it can be, else other weights. Throws Broken when one is refused
// without its module's name, NotConcerned when all are.
std::vector<Injection> injections_for(const Opened&, Fill, double dropout = 0);
std::vector<std::pair<std::string, at::Tensor>> tensors_of(const std::vector<Injection>&);

std::vector<Check> injection_checks();  // part of model_checks()

}  // namespace hansa::conformance
