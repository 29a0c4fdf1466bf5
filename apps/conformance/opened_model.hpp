// An open model that is looked at, and what can be put into it. One thread.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include <ATen/core/grad_mode.h>

#include "conformance/partners.hpp"

namespace hansa::conformance {

inline constexpr double kSameSums = 2e-5;  // relative: fp32, the same sums in another order

// The same texts with a class each, and as padding what counted no label.
Batch with_classes(const Batch&, std::int64_t classes, std::uint64_t seed);

// How large a check's batches are: as it asks for, or smaller when that breaks.
struct Extent {
  std::int64_t rows, length;
  std::uint64_t seed;
};

struct Opened {
  explicit Opened(const Subject& subject) : Opened(subject, subject.make<Model>()) {}
  Opened(const Subject& subject, Instance<Model> made)
      : model(std::move(made)), checkpoint(checkpoint_for(subject, *model)) {
    model->open(checkpoint, {});
    modules = model->modules(checkpoint);
    const auto probe = model->logits({.tokens = made_up_batch(1, 2, model->vocabulary(), 1).tokens}, nullptr);
    if (probe.dim() == 2) classes = probe.size(1);
  }
  Batch batch(const Extent& of) const { return batch(of.rows, of.length, of.seed); }
  Batch batch(std::int64_t rows, std::int64_t length, std::uint64_t seed) const {
    auto made = made_up_batch(rows, length, model->vocabulary(), seed);
    return classifies() ? with_classes(made, classes, seed) : made;
  }
  at::Tensor logits(const Batch& of) const { return model->logits(of, nullptr); }
  double loss(const Batch& of) const {
    const at::NoGradGuard no_grad;
    return model->loss(of).item<double>();
  }
  bool classifies() const { return classes > 0; }
  Instance<Model> model;
  std::filesystem::path checkpoint;
  std::vector<Module> modules;
  std::int64_t classes = 0;  // of a model that tells a class for each row; 0: it foretells tokens
};

// Random values, or those that change nothing: B = 0, the base's own weights.
enum class Fill { Nothing, Something };
Injection pair_for(const Module&, Fill, std::uint64_t seed, double dropout = 0);
// One injection for each module that takes any: a pair where it can be, else other weights. Throws Broken when one is refused
// without its module's name, NotConcerned when all are.
std::vector<Injection> injections_for(const Opened&, Fill, double dropout = 0);
std::vector<std::pair<std::string, at::Tensor>> tensors_of(const std::vector<Injection>&);

using ModelCheck = void (*)(const Subject&, const Opened&, const Extent&);
// A check with batches of at most so many rows and tokens, and no fewer than `fewest` of these.
std::function<void(const Subject&)> on_batches(ModelCheck, std::int64_t rows, std::int64_t length,
                                               std::int64_t fewest = 2);

std::vector<Check> injection_checks();  // part of model_checks()

}  // namespace hansa::conformance
