#include "adapters/peft.hpp"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include <hf/tensors.hpp>

#include "adapters/targets.hpp"
#include "base/error.hpp"
#include "base/file.hpp"

namespace hansa::adapters {

namespace {

using Json = nlohmann::ordered_json;
// PEFT wraps the model once more where it changes modules.
std::string_view prefix_of(std::string_view type) {
  return type == "PROMPT_TUNING" || type == "PREFIX_TUNING" ? "base_model." : "base_model.model.";
}
constexpr std::string_view kConfig = "adapter_config.json", kTensors = "adapter_model.safetensors";
constexpr std::string_view kSequenceClassification = "SEQ_CLS";

// PEFT trains and saves these with every adapter of a classifier.
bool is_classifier(std::string_view module) {
  for (std::string_view name : {"classifier", "score"})
    if (module == name || module.starts_with(std::string(name) + ".")) return true;
  return false;
}

std::string task_of(std::span<const Module> all, const std::string& base) {
  if (std::ranges::any_of(all, [](const Module& m) { return is_classifier(m.name); }))
    return std::string(kSequenceClassification);
  const auto type = hf::model_type_of(base);
  for (const auto* encoder : {"bert", "roberta", "distilbert"})
    if (type == encoder) return "FEATURE_EXTRACTION";
  return "CAUSAL_LM";
}

Json number(double value) {  // 16, not 16.0
  if (value == std::floor(value) && std::abs(value) < 1e15) return static_cast<std::int64_t>(value);
  return value;
}

at::Tensor stored_form(const Module& module, const at::Tensor& weight) {
  return (module.stored_transposed ? weight.detach().t() : weight.detach()).contiguous();
}

std::vector<std::int64_t> stored_shape(const Module& module) {
  if (module.kind == Module::Kind::Norm) return {module.out};
  if (module.kind == Module::Kind::Embedding || module.stored_transposed) return {module.in, module.out};
  return {module.out, module.in};
}

}  // namespace

// ---- writing

struct PeftWriter::State {
  std::span<const Module> all;
  Json config;
  std::vector<std::pair<std::string, at::Tensor>> tensors;
};

PeftWriter::PeftWriter(std::string_view type, std::span<const Module> all, const std::string& base)
    : state_(std::make_unique<State>()) {
  state_->all = all;
  state_->config = {{"peft_type", type},
                    {"task_type", task_of(all, base)},
                    {"base_model_name_or_path", base},
                    {"inference_mode", true},
                    {"peft_version", "0.21.0"}};
}
PeftWriter::~PeftWriter() = default;

void PeftWriter::set(std::string_view key, std::int64_t value) { state_->config[std::string(key)] = value; }
void PeftWriter::set(std::string_view key, double value) { state_->config[std::string(key)] = number(value); }
void PeftWriter::set(std::string_view key, std::string_view text) { state_->config[std::string(key)] = text; }
void PeftWriter::set(std::string_view key, const std::vector<std::string>& list) {
  state_->config[std::string(key)] = list;
}
void PeftWriter::set(std::string_view key, const NumberPattern& pattern) {
  auto object = Json::object();
  for (const auto& [module, value] : pattern) object[module] = number(value);
  state_->config[std::string(key)] = object;
}
void PeftWriter::flag(std::string_view key, bool value) { state_->config[std::string(key)] = value; }
void PeftWriter::null(std::string_view key) { state_->config[std::string(key)] = nullptr; }

void PeftWriter::targets(const std::vector<std::string>& modules) {
  state_->config["target_modules"] = shortest_targets(state_->all, modules);
  state_->config["fan_in_fan_out"] = std::ranges::any_of(state_->all, [&](const Module& module) {
    return module.stored_transposed && std::ranges::find(modules, module.name) != modules.end();
  });
}

void PeftWriter::tensor(const std::string& name, const at::Tensor& tensor) {
  state_->tensors.emplace_back(name, tensor.detach().contiguous());
}
void PeftWriter::tensor(const Module& module, std::string_view what, const at::Tensor& value) {
  const auto prefix = prefix_of(state_->config["peft_type"].get<std::string>());
  tensor(fmt::format("{}{}.{}", prefix, module.name, what), value);
}

void PeftWriter::finish(const std::filesystem::path& directory, const Model& model, std::span<const Whole> trained) {
  std::vector<std::string> names;
  std::set<std::string> written;
  const auto put = [&](const Module& module, const at::Tensor& weight, const at::Tensor& bias) {
    tensor(module, "weight", stored_form(module, weight));
    if (module.bias) tensor(module, "bias", bias);
    written.insert(module.name);
    if (!is_classifier(module.name)) names.push_back(module.name);
  };
  for (const auto& whole : trained) put(whole.module, whole.weight, whole.bias);
  auto listed = shortest_targets(state_->all, names, Ends::Plain);
  if (state_->config["task_type"] == kSequenceClassification) {
    for (const auto& module : state_->all) {
      if (!is_classifier(module.name) || written.contains(module.name)) continue;
      const auto [weight, bias] = model.base(module.name);
      put(module, weight, bias);
    }
    listed.insert(listed.end(), {"classifier", "score"});
  }
  state_->config["modules_to_save"] = listed.empty() ? Json(nullptr) : Json(listed);
  std::filesystem::create_directories(directory);
  hf::save_tensors(directory / kTensors, state_->tensors);
  write_file_atomically(directory / kConfig, state_->config.dump(2) + "\n", Durability::Process);
}

std::optional<std::int64_t> attention_heads_of(const std::string& base) {
  const auto file = std::filesystem::path(base) / "config.json";
  if (!std::filesystem::is_regular_file(file)) return std::nullopt;
  auto config = nlohmann::json::parse(read_file(file), nullptr, /*allow_exceptions=*/false);
  if (config.is_object() && config.contains("text_config")) config = config["text_config"];
  for (const auto* key : {"num_attention_heads", "n_head", "n_heads"})
    if (config.is_object() && config.contains(key) && config[key].is_number_integer())
      return config[key].get<std::int64_t>();
  return std::nullopt;
}

// ---- reading

struct PeftReader::State {
  State(const std::filesystem::path& d, std::string a, std::span<const Module> m)
      : directory(d),
        adapter(std::move(a)),
        all(m),
        config(hf::JsonConfig::parse(read_file(d / kConfig), (d / kConfig).string(), adapter)),
        file(d / kTensors) {}
  std::filesystem::path directory;
  std::string adapter;
  std::span<const Module> all;
  hf::JsonConfig config;
  hf::SafetensorsFile file;
  std::string_view prefix;
  std::set<std::string> taken;
  std::vector<std::string> to_save;
  bool classifies = false;
};

PeftReader::PeftReader(const std::filesystem::path& directory, std::string adapter, std::span<const Module> all)
    : state_(std::make_unique<State>(directory, std::move(adapter), all)) {
  auto& config = state_->config;
  state_->prefix = prefix_of(config.required_text("peft_type"));
  const auto task = config.choice("task_type", "CAUSAL_LM", {"CAUSAL_LM", "SEQ_CLS", "FEATURE_EXTRACTION"});
  state_->classifies = task == kSequenceClassification;
  state_->to_save = config.texts("modules_to_save").value_or(std::vector<std::string>{});
  config.inert({{"base_model_name_or_path", "where the base came from"},
                {"revision", "where the base came from"},
                {"auto_mapping", "names of Python classes"},
                {"peft_version", "who wrote the file"},
                {"inference_mode", "how Python loads it"}});
}
PeftReader::~PeftReader() = default;

hf::JsonConfig& PeftReader::config() { return state_->config; }

// PEFT reads keys as regular expressions that match an end of a module's name, the first one wins; plain names are all that
// is honoured here.
NumberPattern PeftReader::pattern(const char* key) {
  const auto path = state_->directory / kConfig;
  state_->config.inert({{key, "read here, in its order"}});
  const auto config = Json::parse(read_file(path));
  NumberPattern pattern;
  if (!config.contains(key) || config[key].is_null()) return pattern;
  if (!config[key].is_object()) throw Error(fmt::format("{}: {} is no object", path.string(), key));
  for (const auto& [module, value] : config[key].items()) {
    const bool plain = module.find_first_of("^$*+?()[]{}|\\") == std::string::npos;
    if (!plain || !value.is_number() || !(value.get<double>() > 0))
      throw Error(fmt::format("{}: {} gives '{}' {}; {} knows names of modules with numbers above 0", path.string(),
                              key, module, value.dump(), state_->adapter));
    pattern.emplace_back(module, value.get<double>());
  }
  return pattern;
}

bool PeftReader::has(const Module& module, std::string_view what) const {
  return has(fmt::format("{}{}.{}", state_->prefix, module.name, what));
}
bool PeftReader::has(const std::string& name) const { return state_->file.find(name) != nullptr; }

at::Tensor PeftReader::take(const Module& module, std::string_view what, std::vector<std::int64_t> shape) {
  return take(fmt::format("{}{}.{}", state_->prefix, module.name, what), std::move(shape));
}

at::Tensor PeftReader::take(const std::string& name, std::vector<std::int64_t> shape) {
  const auto& file = state_->file;
  const auto* stored = file.find(name);
  if (!stored) throw Error(fmt::format("{}: tensor '{}' is missing", file.path().string(), name));
  bool fits = stored->shape.size() == shape.size();
  for (std::size_t i = 0; fits && i < shape.size(); ++i) fits = shape[i] == -1 || shape[i] == stored->shape[i];
  if (!fits)
    throw Error(fmt::format("{}: tensor '{}' is {}, but this model and adapter_config.json make it {}",
                            file.path().string(), name, fmt::join(stored->shape, " x "), fmt::join(shape, " x ")));
  state_->taken.insert(name);
  return hf::load_tensor(*stored, DType::f32);
}

std::vector<Whole> PeftReader::finish() {
  state_->config.finish();
  std::vector<Whole> found;
  const auto wanted = [&](const Module& module) {
    if (state_->classifies && is_classifier(module.name)) return true;
    return std::ranges::any_of(state_->to_save, [&](const std::string& end) {
      return module.name.ends_with(end) || module.name.find("." + end + ".") != std::string::npos ||
             module.name.starts_with(end + ".");
    });
  };
  for (const auto& module : state_->all) {
    if (!wanted(module) || (!has(module, "weight") && !has(module, "bias"))) continue;
    const auto weight = take(module, "weight", stored_shape(module));
    found.push_back({module, module.stored_transposed ? weight.t().contiguous() : weight,
                     module.bias ? take(module, "bias", {module.out}) : at::Tensor()});
  }
  for (const auto& end : state_->to_save) {
    const bool there = std::ranges::any_of(found, [&](const Whole& whole) {
      return whole.module.name.ends_with(end) || whole.module.name.find(end + ".") != std::string::npos;
    });
    if (!there && !is_classifier(end))
      throw Error(fmt::format("{}: modules_to_save names '{}', but no tensor of such a module of this model is there",
                              state_->file.path().string(), end));
  }
  for (const auto& tensor : state_->file.tensors())
    if (!state_->taken.contains(tensor.name))
      throw Error(fmt::format("{}: tensor '{}' belongs to no module of this model that {} works on",
                              state_->file.path().string(), tensor.name, state_->adapter));
  if (state_->taken.empty()) throw Error(fmt::format("{}: holds no tensor", state_->file.path().string()));
  return found;
}

namespace {

// Of a file that may be anybody's.
std::optional<nlohmann::json> object_in(const std::filesystem::path& path) {
  if (!std::filesystem::is_regular_file(path)) return std::nullopt;
  auto parsed = nlohmann::json::parse(read_file(path), nullptr, /*allow_exceptions=*/false);
  return parsed.is_object() ? std::optional(std::move(parsed)) : std::nullopt;
}

}  // namespace

std::string peft_type_of(const std::filesystem::path& directory) {
  if (!std::filesystem::exists(directory / kTensors)) return {};
  const auto config = object_in(directory / kConfig);
  if (!config || !config->contains("peft_type") || !(*config)["peft_type"].is_string()) return {};
  return (*config)["peft_type"].get<std::string>();
}

bool peft_flag_of(const std::filesystem::path& directory, std::string_view key) {
  const auto config = object_in(directory / kConfig);
  const auto found = config ? config->find(std::string(key)) : nlohmann::json::const_iterator{};
  return config && found != config->end() && found->is_boolean() && found->get<bool>();
}

double value_for(const NumberPattern& pattern, const std::string& module, double otherwise) {
  for (const auto& [end, value] : pattern)
    if (ends_like(module, end)) return value;
  return otherwise;
}

// ---- our own

void sign(const std::filesystem::path& directory, std::string_view adapter, const std::string& base) {
  const Json about = {{"adapter", adapter}, {"format", 1}, {"base_model_name_or_path", base}};
  write_file_atomically(directory / kOwnFile, about.dump(2) + "\n", Durability::Process);
}

void write_own(const std::filesystem::path& directory, std::string_view adapter, const std::string& base,
               const Own& own) {
  Json about = {{"adapter", adapter}, {"format", 1}, {"base_model_name_or_path", base}, {"settings", own.settings}};
  std::filesystem::create_directories(directory);
  hf::save_tensors(directory / kTensors, own.tensors);
  write_file_atomically(directory / kOwnFile, about.dump(2) + "\n", Durability::Process);
}

Own read_own(const std::filesystem::path& directory, std::string_view adapter) {
  const auto path = directory / kOwnFile;
  auto config = hf::JsonConfig::parse(read_file(path), path.string(), fmt::format("adapter {}", adapter));
  config.only("adapter", {fmt::format("\"{}\"", adapter)});
  config.only("format", {"1"});
  config.inert({{"base_model_name_or_path", "where the base came from"}, {"settings", "read below"}});
  config.finish();
  Own own;
  const auto about = nlohmann::json::parse(read_file(path));
  if (about.contains("settings")) own.settings = about["settings"].get<Settings>();
  const hf::SafetensorsFile file(directory / kTensors);
  for (const auto& stored : file.tensors()) own.tensors.emplace_back(stored.name, hf::load_tensor(stored, DType::f32));
  return own;
}

std::string own_adapter_of(const std::filesystem::path& directory) {
  if (!std::filesystem::exists(directory / kTensors)) return {};
  const auto about = object_in(directory / kOwnFile);
  if (!about || !about->contains("adapter") || !(*about)["adapter"].is_string()) return {};
  return (*about)["adapter"].get<std::string>();
}

}  // namespace hansa::adapters
