// What the parity tests need of models and adapters, through the real plugins: logits, gradients, exports, random weights.
//   model_tool VERB --plugins DIR --model DIR [--adapter DIR] [--tokens ids.json] [--out PATH] …
// The verbs stand at the end. Errors: one sentence on stderr, exit 1.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <cstdio>
#include <functional>
#include <map>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <hansa/adapter.hpp>
#include <hansa/layouts.hpp>
#include <hf/safetensors.hpp>
#include <hf/tensors.hpp>
#include <nn/dropout.hpp>

#include "base/error.hpp"
#include "base/file.hpp"
#include "plugin_host/instance.hpp"

namespace hansa {
namespace {

class Options {
 public:
  Options(int count, char** words) {
    for (int i = 0; i + 1 < count; i += 2) held_[words[i]] = words[i + 1];
  }
  bool has(const std::string& name) const { return held_.contains(name); }
  std::string get(const std::string& name) const {
    auto found = held_.find(name);
    if (found == held_.end()) throw Error(name + " is missing");
    return found->second;
  }
  std::string get(const std::string& name, const std::string& when_absent) const {
    return has(name) ? get(name) : when_absent;
  }

 private:
  std::map<std::string, std::string> held_;
};

Value value_of(const nlohmann::json& json);
Value list_of_values(const nlohmann::json& json) {
  std::vector<Value> items;
  for (const auto& item : json) items.push_back(value_of(item));
  return Value::list(std::move(items));
}
Value table_of_values(const nlohmann::json& json) {
  std::vector<std::pair<std::string, Value>> entries;
  for (const auto& [key, value] : json.items()) entries.emplace_back(key, value_of(value));
  return Value::table(std::move(entries));
}
Value value_of(const nlohmann::json& json) {
  if (json.is_boolean()) return Value::boolean(json.get<bool>());
  if (json.is_number_integer()) return Value::integer(json.get<std::int64_t>());
  if (json.is_number()) return Value::real(json.get<double>());
  if (json.is_array()) return list_of_values(json);
  if (json.is_object()) return table_of_values(json);
  return Value::text(json.get<std::string>());
}

class Tool {
 public:
  explicit Tool(const Options& options) : options_(options), directory_(options.get("--model")) {
    registry_.scan(SearchPath{options.get("--plugins"), "--plugins"});
    for (const auto* component : registry_.components("model")) {
      auto candidate = hansa::create<Model>(registry_, *component, defaults(*component), services_);
      if (candidate->accepts(directory_)) model_ = std::move(candidate);
    }
    if (!model_) throw Error("no model plugin accepts " + directory_.string());
  }
  void open() {
    model_->open(directory_, {.compute = options_.get("--compute", "f32") == "bf16" ? DType::bf16 : DType::f32});
  }
  void inject() {
    if (!options_.has("--adapter")) return;
    for (const auto* component : registry_.components("adapter")) {
      auto candidate = hansa::create<Adapter>(registry_, *component, defaults(*component), services_);
      if (candidate->recognises(options_.get("--adapter"))) adapter_ = std::move(candidate);
    }
    if (!adapter_) throw Error("no adapter plugin recognises " + options_.get("--adapter"));
    adapter_->import_from(options_.get("--adapter"), *model_, modules());
    model_->inject(adapter_->injections());
  }
  Batch batch() const {
    const auto rows =
        nlohmann::json::parse(read_file(options_.get("--tokens"))).get<std::vector<std::vector<std::int64_t>>>();
    auto tokens =
        at::empty({static_cast<std::int64_t>(rows.size()), static_cast<std::int64_t>(rows.at(0).size())}, at::kLong);
    for (std::size_t i = 0; i < rows.size(); ++i)
      std::copy(rows[i].begin(), rows[i].end(),
                tokens.data_ptr<std::int64_t>() + static_cast<std::int64_t>(i) * tokens.size(1));
    return {.tokens = tokens};
  }
  void logits() {
    open();
    inject();
    hf::save_tensors(options_.get("--out"), {{"logits", model_->logits(batch(), nullptr)}});
  }
  void gradients() {  // of the summed loss of the ids, each row predicting its next, or of --classes, one a row
    open();
    inject();
    auto learnt = batch();
    const auto length = learnt.tokens.size(1) - 1;
    if (options_.has("--classes")) {
      const auto classes = nlohmann::json::parse(options_.get("--classes")).get<std::vector<std::int64_t>>();
      learnt.labels = at::empty({static_cast<std::int64_t>(classes.size())}, at::kLong);
      std::copy(classes.begin(), classes.end(), learnt.labels.data_ptr<std::int64_t>());
    } else {
      learnt.labels = learnt.tokens.narrow(1, 1, length).contiguous();
      learnt.tokens = learnt.tokens.narrow(1, 0, length).contiguous();
    }
    auto loss = model_->loss(learnt);
    loss.backward();
    std::vector<std::pair<std::string, at::Tensor>> found{{"loss", loss.detach().reshape({1})}};
    const auto layout = adapter_->layout(modules(), 0);
    for (Index i = 0; i < layout.tensors.size(); ++i)
      found.emplace_back(layout.tensors[i].name, adapter_->parameter(i).grad());
    hf::save_tensors(options_.get("--out"), found);
  }
  void export_adapter() {  // fresh, then with noise on every parameter, so that B is not zero
    open();
    const auto& component = require(registry_, Adapter::kKind, options_.get("--kind"));
    const auto given = table_of_values(nlohmann::json::parse(options_.get("--params", "{}")));
    auto adapter = hansa::create<Adapter>(registry_, component, with_defaults(component, given), services_);
    adapter->create(*model_, modules(), 0, 3);
    auto generator = nn::make_generator(4);
    {
      at::NoGradGuard no_grad;
      for (Index i = 0; i < adapter->layout(modules(), 0).tensors.size(); ++i) {
        auto parameter = adapter->parameter(i);
        parameter.add_(at::empty(parameter.sizes(), at::kFloat).normal_(0, 0.05, generator));
      }
    }
    if (options_.has("--residual")) adapter->receive(*model_, residual(adapter->layout(modules(), 0), generator));
    adapter->export_to(*model_, modules(), directory_.string(), options_.get("--out"));
  }
  void merge() {
    open();
    inject();
    save_model();
  }
  void initialise() {
    model_->initialise(directory_, {}, 7);
    save_model();
  }

 private:
  // What a rule may add to frozen weights: --residual '{"v_proj": 3}' gives modules with that end three random columns.
  Download residual(const Layout& layout, at::Generator& generator) const {
    Download download{.channel = "residual", .epoch = 1, .anew = true};
    const auto wanted = nlohmann::json::parse(options_.get("--residual"));
    for (Index i = 0; i + 1 < layout.tensors.size(); i += 2) {
      const std::string module(module_of(layout.tensors[i].name));
      for (const auto& [end, columns] : wanted.items()) {
        if (!module.ends_with(end)) continue;
        const auto in = layout.tensors[i].shape[1], out = layout.tensors[i + 1].shape[0],
                   n = columns.get<std::int64_t>();
        download.tensors.emplace_back(module + ".residual_A",
                                      at::empty({n, in}, at::kFloat).normal_(0, 0.1, generator));
        download.tensors.emplace_back(module + ".residual_B",
                                      at::empty({out, n}, at::kFloat).normal_(0, 0.1, generator));
      }
    }
    return download;
  }
  std::vector<Module> modules() const { return model_->modules(directory_); }
  static Value defaults(const HansaComponent& component) { return with_defaults(component, Value()); }
  void save_model() const {
    const std::filesystem::path out = options_.get("--out");
    std::filesystem::create_directories(out);
    std::filesystem::copy_file(directory_ / "config.json", out / "config.json",
                               std::filesystem::copy_options::overwrite_existing);
    hf::save_tensors(out / "model.safetensors", model_->merged());
  }

  const Options& options_;
  std::filesystem::path directory_;
  HostServices services_;
  StrategyRegistry registry_;
  Instance<Model> model_;
  Instance<Adapter> adapter_;
};

// Many models in one process: --jobs file.json holds a list of
//   {"model": DIR, "out": PATH, "tokens": [[…]], "labels", "positions", "segments": the same or absent (labels of a
//    classifier: a list),
//    "pairs": a safetensors file with "<module>.A" and "<module>.B", whose gradients are wanted, or absent,
//    "steps": [6, 1, 1, …] to go through a cache, or absent; "hidden": the last layer's output too, or absent,
//    "kernels": "plain", or absent for the fast ones,
//    "merged": a directory for a checkpoint of random weights with the pairs folded in, or absent: then the model is read}
// Each writes a safetensors file with "logits", "cached" (where steps are given), and, where there are labels, "loss" and the
// gradients under the names of the pairs; or, where it is refused, PATH.txt with the message.
class Jobs {
 public:
  explicit Jobs(const Options& options) : jobs_(nlohmann::json::parse(read_file(options.get("--jobs")))) {
    registry_.scan(SearchPath{options.get("--plugins"), "--plugins"});
  }
  void run() {
    for (const auto& job : jobs_) {
      const auto out = job.at("out").get<std::string>();
      try {
        hf::save_tensors(out, done(job));
      } catch (const std::exception& problem) {
        write_file_atomically(out + ".txt", problem.what(), Durability::Process);
      }
    }
  }

 private:
  using Named = std::vector<std::pair<std::string, at::Tensor>>;
  static at::Tensor table(const nlohmann::json& job, const char* key) {
    if (!job.contains(key)) return {};
    if (!job.at(key).at(0).is_array()) {  // a class for each row
      const auto each = job.at(key).get<std::vector<std::int64_t>>();
      auto classes = at::empty({static_cast<std::int64_t>(each.size())}, at::kLong);
      std::copy(each.begin(), each.end(), classes.data_ptr<std::int64_t>());
      return classes;
    }
    const auto rows = job.at(key).get<std::vector<std::vector<std::int64_t>>>();
    auto ids =
        at::empty({static_cast<std::int64_t>(rows.size()), static_cast<std::int64_t>(rows.at(0).size())}, at::kLong);
    for (std::size_t i = 0; i < rows.size(); ++i)
      std::copy(rows[i].begin(), rows[i].end(),
                ids.data_ptr<std::int64_t>() + static_cast<std::int64_t>(i) * ids.size(1));
    return ids;
  }
  Model& opened(const std::filesystem::path& directory, Kernels kernels, bool fresh) {
    if (directory == directory_ && kernels == kernels_ && !fresh) return *model_;
    directory_.clear();
    model_.reset();
    for (const auto* component : registry_.components("model")) {
      auto candidate = hansa::create<Model>(registry_, *component, with_defaults(*component, Value()), services_);
      if (candidate->accepts(directory)) model_ = std::move(candidate);
    }
    if (!model_) throw Error("no model plugin accepts " + directory.string());
    if (fresh)
      model_->initialise(directory, {}, 7);
    else
      model_->open(directory, {.kernels = kernels});
    if (!fresh) directory_ = directory;
    kernels_ = kernels;
    return *model_;
  }
  Named done(const nlohmann::json& job) {
    const std::filesystem::path directory = job.at("model").get<std::string>();
    const auto kernels = job.value("kernels", "fast") == "plain" ? Kernels::Plain : Kernels::Fast;
    auto& model = opened(directory, kernels, job.contains("merged"));
    Batch batch{.tokens = table(job, "tokens"),
                .labels = table(job, "labels"),
                .positions = table(job, "positions"),
                .segments = table(job, "segments")};
    std::vector<Injection> injections;
    Named parameters, found;
    if (job.contains("pairs")) {
      const hf::SafetensorsFile file(job.at("pairs").get<std::string>());
      for (const auto& stored : file.tensors()) {
        if (!stored.name.ends_with(".A")) continue;
        const auto module = stored.name.substr(0, stored.name.size() - 2);
        auto A = hf::load_tensor(stored, DType::f32).requires_grad_(true);
        auto B = hf::load_tensor(*file.find(module + ".B"), DType::f32).requires_grad_(true);
        injections.push_back({module, LowRank{.A = A, .B = B, .scale = 2}});
        parameters.emplace_back(module + ".A", A);
        parameters.emplace_back(module + ".B", B);
      }
    }
    model.inject(injections);
    if (batch.labels.defined() && batch.labels.dim() == 1) batch.task = Task::Classification;
    found.emplace_back("logits", model.logits(batch, nullptr));
    if (job.contains("hidden")) found.emplace_back("hidden", model.hidden(batch));
    if (job.contains("merged")) {
      const std::filesystem::path out = job.at("merged").get<std::string>();
      std::filesystem::create_directories(out);
      std::filesystem::copy_file(directory / "config.json", out / "config.json");
      hf::save_tensors(out / "model.safetensors", model.merged());
    }
    if (job.contains("steps")) found.emplace_back("cached", cached(model, batch.tokens, job.at("steps")));
    if (!batch.labels.defined()) return found;
    const auto loss = model.loss(batch);
    found.emplace_back("loss", loss.detach().reshape({1}));
    if (parameters.empty()) return found;
    loss.backward();
    for (const auto& [name, parameter] : parameters) found.emplace_back(name, parameter.grad());
    return found;
  }
  static at::Tensor cached(Model& model, const at::Tensor& tokens, const nlohmann::json& steps) {
    const auto cache = model.cache(tokens.size(0), tokens.size(1));
    std::vector<at::Tensor> parts;
    std::int64_t first = 0;
    for (const auto& step : steps) {
      const auto count = step.get<std::int64_t>();
      parts.push_back(model.logits({.tokens = tokens.narrow(1, first, count)}, cache.get()));
      first += count;
    }
    return at::cat(parts, 1);
  }

  nlohmann::json jobs_;
  HostServices services_;
  StrategyRegistry registry_;
  Instance<Model> model_;
  std::filesystem::path directory_;  // of model_, opened with kernels_
  Kernels kernels_ = Kernels::Fast;
};

void run(const std::string& verb, const Options& options) {
  if (verb == "jobs") return Jobs(options).run();
  const std::map<std::string, void (Tool::*)()> verbs{{"logits", &Tool::logits},
                                                      {"gradients", &Tool::gradients},
                                                      {"export-adapter", &Tool::export_adapter},
                                                      {"merge", &Tool::merge},
                                                      {"initialise", &Tool::initialise}};
  auto found = verbs.find(verb);
  if (found == verbs.end()) throw Error("unknown verb " + verb);
  Tool tool(options);
  (tool.*found->second)();
}

}  // namespace
}  // namespace hansa

int main(int count, char** words) {
  try {
    if (count < 2) throw hansa::Error("a verb is missing");
    hansa::run(words[1], hansa::Options(count - 2, words + 2));
    return 0;
  } catch (const c10::Error& error) {
    fmt::print(stderr, "{}\n", error.what_without_backtrace());
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
  }
  return 1;
}
