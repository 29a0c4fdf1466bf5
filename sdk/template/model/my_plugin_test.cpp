#include "my_plugin.hpp"

#include <unistd.h>

#include <cmath>
#include <fstream>

#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <hansa/testing/plain_test.hpp>
#include <hf/tensors.hpp>

using example::MyPlugin;
using hansa::testing::promise;

namespace {

class Checkpoint {  // a directory that goes away
 public:
  explicit Checkpoint(const std::string& config = R"({"model_type": "my_plugin", "vocab_size": 3})")
      : path_(std::filesystem::temp_directory_path() / ("my_plugin_test_" + std::to_string(getpid()))) {
    std::filesystem::create_directories(path_);
    std::ofstream(path_ / "config.json") << config;
    auto table = at::zeros({3, 3});
    table.select(0, 1).select(0, 2).fill_(2);  // after token 1, token 2 is likelier
    hansa::hf::save_tensors(path_ / "model.safetensors", {{"table.weight", table}});
  }
  ~Checkpoint() { std::filesystem::remove_all(path_); }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

hansa::Batch one_two() {
  hansa::Batch batch;
  batch.tokens = at::full({1, 2}, 1, at::kLong);
  batch.labels = at::full({1, 2}, 2, at::kLong);
  batch.labels.select(1, 1).fill_(-100);
  batch.counted = 1;
  return batch;
}

void the_loss_is_as_by_hand_and_has_a_gradient() {
  const Checkpoint checkpoint;
  MyPlugin model;
  promise(model.accepts(checkpoint.path()) && !model.accepts("/nowhere"), "accepts another directory");
  model.open(checkpoint.path(), {});
  const double want = std::log(2 + std::exp(2.0)) - 2;
  promise(std::abs(model.loss(one_two()).item<double>() - want) < 1e-6, "another loss");
  auto weight = model.base("table").first.clone().requires_grad_(true);
  model.inject(std::vector<hansa::Injection>{{"table", hansa::Replace{weight, {}}}});
  model.loss(one_two()).backward();
  promise(weight.grad().defined() && weight.grad().abs().sum().item<double>() > 0.1, "no gradient");
  promise(at::equal(model.merged()[0].second, weight.detach()), "merged() is not what the model computes with");
  model.inject({});
  promise(!model.merged()[0].second.requires_grad(), "the injection stayed");
}

void logits_go_on_from_a_cache() {
  const Checkpoint checkpoint;
  MyPlugin model;
  model.initialise(checkpoint.path(), {}, 5);
  const auto cache = model.cache(1, 10);
  const auto logits = model.logits(one_two(), cache.get());
  promise(logits.sizes() == at::IntArrayRef({1, 2, 3}) && cache->length() == 2, "another shape or length");
  MyPlugin same;
  same.initialise(checkpoint.path(), {}, 5);
  promise(at::equal(same.logits(one_two(), nullptr), logits), "the same seed gave another model");
}

void what_is_not_supported_is_refused() {
  const Checkpoint odd(R"({"model_type": "my_plugin", "vocab_size": 3, "layers": 9})");
  MyPlugin model;
  hansa::testing::promise_throws([&] { model.modules(odd.path()); }, "an unknown key was ignored");
  hansa::testing::promise_throws(
      [&] {
        model.inject(std::vector<hansa::Injection>{{"table", hansa::LowRank{}}});
      },
      "a low-rank pair was accepted");
}

}  // namespace

int main() {
  return hansa::testing::run_cases(
      {{"the loss is as by hand and has a gradient", the_loss_is_as_by_hand_and_has_a_gradient},
       {"logits go on from a cache", logits_go_on_from_a_cache},
       {"what is not supported is refused", what_is_not_supported_is_refused}});
}
