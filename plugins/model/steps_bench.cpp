// Trains with a model's real plugin file on given tokens and prints how long each step took, in one JSON object: one side of
// tests/bench/train.py. Not a test.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <optional>
#include <thread>

#include <ATen/ops/empty.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <hansa/model.hpp>
#include <nlohmann/json.hpp>
#include <nn/dropout.hpp>
#include <train/optimizer.hpp>

#include "plugin_host/instance.hpp"
#include "plugin_host/registry.hpp"

using namespace hansa;
using Json = nlohmann::json;

namespace {

std::int64_t status_kb(const std::string& key) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with(key + ":")) return std::stoll(line.substr(key.size() + 1));
  return 0;
}

// Anonymous and shared memory: without the pages of mapped files, which the system takes back when it likes.
std::int64_t memory_kb() { return status_kb("RssAnon") + status_kb("RssShmem"); }

class Peak {  // of memory_kb(), looked at from time to time: what lasts for less is not seen
 public:
  explicit Peak(std::chrono::milliseconds every)
      : thread_([this, every](const std::stop_token& stop) {
          while (!stop.stop_requested()) {
            peak_ = std::max(peak_.load(), memory_kb());
            std::this_thread::sleep_for(every);
          }
        }) {}
  std::int64_t kb() const { return peak_; }

 private:
  std::atomic<std::int64_t> peak_ = 0;
  std::jthread thread_;
};

BaseDtype base_dtype_of(const Json& what) {
  const auto names = base_dtype_names();
  const auto at = std::find(names.begin(), names.end(), what.value("base_dtype", "compute"));
  if (at == names.end()) throw std::runtime_error("unknown base_dtype");
  return static_cast<BaseDtype>(at - names.begin());
}

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

at::Tensor read_tokens(const Json& what, std::int64_t columns) {
  std::ifstream file(what.at("tokens").get<std::string>(), std::ios::binary | std::ios::ate);
  const auto count = static_cast<std::int64_t>(file.tellg()) / 8;
  auto tokens = at::empty({count / columns, columns}, at::kLong);
  file.seekg(0);
  file.read(static_cast<char*>(tokens.data_ptr()), tokens.numel() * 8);
  return tokens;
}

// rank 0: every parameter trains.
std::vector<at::Tensor> inject(Model& model, const Json& what) {
  const auto rank = what.at("rank").get<std::int64_t>();
  std::vector<Injection> injections;
  std::vector<at::Tensor> parameters;
  std::uint64_t seed = 0;
  for (const auto& module : model.modules(what.at("checkpoint").get<std::string>())) {
    if (rank > 0) {
      if (module.kind != Module::Kind::Linear) continue;
      LowRank pair{.scale = 2};
      pair.A = at::randn({rank, module.in}, nn::make_generator(++seed), at::kFloat)
                   .mul_(1 / std::sqrt(3.0 * static_cast<double>(module.in)))
                   .requires_grad_();
      // Where gradients are asked for B is not 0, or A's would all be 0.
      pair.B = what.contains("gradient")
                   ? at::randn({module.out, rank}, nn::make_generator(++seed), at::kFloat).mul_(0.02)
                   : at::zeros({module.out, rank}, at::kFloat);
      pair.B.requires_grad_();
      parameters.insert(parameters.end(), {pair.A, pair.B});
      injections.push_back({module.name, pair});
    } else if (module.kind != Module::Kind::Attention && module.kind != Module::Kind::Head) {
      auto [weight, bias] = model.base(module.name);
      const auto type = what.at("dtype") == "bf16" ? at::kBFloat16 : at::kFloat;
      Replace replace{.weight = weight.to(type).requires_grad_()};
      parameters.push_back(replace.weight);
      if (bias.defined()) parameters.push_back(replace.bias = bias.to(type).requires_grad_());
      injections.push_back({module.name, replace});
    }
  }
  model.inject(injections);
  return parameters;
}

Json training(Model& model, const Json& what) {
  const auto batch = what.at("batch").get<std::int64_t>(), length = what.at("length").get<std::int64_t>();
  const auto tokens = read_tokens(what, length + 1);
  auto parameters = inject(model, what);
  const auto optimizer = train::adamw(parameters, {});
  Json result{{"seconds", Json::array()}, {"loss", Json::array()}};
  std::int64_t after_some = 0;
  const auto steps = what.at("steps").get<int>();
  for (int step = 0; step < steps; ++step) {
    const auto start = now();
    const auto rows = tokens.narrow(0, step * batch % (tokens.size(0) - batch + 1), batch);
    auto loss = model.loss({.tokens = rows.narrow(1, 0, length).contiguous(),
                            .labels = rows.narrow(1, 1, length).contiguous(),
                            .counted = batch * length});
    loss.backward();
    train::scale_gradients(parameters, 1.0 / static_cast<double>(batch * length), 0);
    if (step == 0 && what.contains("gradient")) {
      std::ofstream file(what.at("gradient").get<std::string>(), std::ios::binary);
      for (const auto& parameter : parameters) {
        const auto gradient = parameter.grad().to(at::kFloat).contiguous();
        file.write(static_cast<const char*>(gradient.data_ptr()), gradient.numel() * 4);
      }
    }
    optimizer->step(what.at("rate").get<double>());
    train::clear_gradients(parameters);
    result["loss"].push_back(loss.item<double>() / static_cast<double>(batch * length));
    result["seconds"].push_back(now() - start);
    if (step == steps / 5) after_some = status_kb("VmRSS");
  }
  result["growth_kb"] = status_kb("VmRSS") - after_some;
  return result;
}

}  // namespace

int main(int count, char** words) {
  if (count != 3) {
    std::cerr << "steps_bench FOLDER_OF_PLUGINS JSON\n";
    return 2;
  }
  const auto what = Json::parse(words[2]);
  at::set_num_threads(what.at("threads").get<int>());
  const auto before = status_kb("VmRSS"), idle = memory_kb();
  const auto name = what.at("model").get<std::string>();
  StrategyRegistry registry;
  registry.scan({std::filesystem::path(words[1]) / ("hansa_" + name + ".so"), "the benchmark"});
  const auto model = create<Model>(registry, name, Value(), HostServices{});
  std::optional<Peak> peak(std::in_place, std::chrono::milliseconds(2));
  const auto start = now();
  model->open(what.at("checkpoint").get<std::string>(),
              {.compute = what.at("dtype") == "bf16" ? DType::bf16 : DType::f32,
               .base = base_dtype_of(what),
               .kernels = what.at("kernels") == "fast" ? Kernels::Fast : Kernels::Plain,
               .recompute = what.at("recompute").get<bool>()});
  const auto load_seconds = now() - start;
  const auto load_peak = peak->kb(), loaded = memory_kb();
  peak.emplace(std::chrono::milliseconds(50));  // a look takes the steps' time
  auto result = training(*model, what);
  result["peak_kb"] = status_kb("VmHWM");
  result["before_kb"] = before;
  result["load"] = {{"seconds", load_seconds}, {"idle_kb", idle}, {"peak_kb", load_peak}, {"held_kb", loaded}};
  result["memory_peak_kb"] = std::max(peak->kb(), load_peak);
  std::cout << result << "\n";
  return 0;
}
