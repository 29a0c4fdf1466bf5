#include "peft.hpp"

#include <algorithm>
#include <cmath>
#include <set>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include <hf/json_config.hpp>
#include <hf/tensors.hpp>

#include "base/error.hpp"
#include "base/file.hpp"

namespace hansa::lora {

namespace {

constexpr std::string_view kPrefix = "base_model.model.";
constexpr std::string_view kConfig = "adapter_config.json", kTensors = "adapter_model.safetensors";

bool ends_like(std::string_view name, std::string_view target) {
  return name == target || (name.ends_with(target) && name[name.size() - target.size() - 1] == '.');
}

hf::JsonConfig open_config(const std::filesystem::path& directory) {
  const auto path = directory / kConfig;
  return hf::JsonConfig::parse(read_file(path), path.string(), "adapter lora");
}

// rank_pattern and alpha_pattern: values of single modules. PEFT reads keys as regular expressions that match an end of a
// module's name, the first one wins; plain names are all that is honoured here.
using Pattern = std::vector<std::pair<std::string, double>>;

Pattern read_pattern(const std::filesystem::path& directory, const char* key) {
  const auto path = directory / kConfig;
  const auto config = nlohmann::ordered_json::parse(read_file(path));
  Pattern pattern;
  if (!config.contains(key) || config[key].is_null()) return pattern;
  if (!config[key].is_object()) throw Error(fmt::format("{}: {} is no object", path.string(), key));
  for (const auto& [module, value] : config[key].items()) {
    const bool plain = module.find_first_of("^$*+?()[]{}|\\") == std::string::npos;
    if (!plain || !value.is_number() || !(value.get<double>() > 0))
      throw Error(fmt::format("{}: {} gives '{}' {}; adapter lora knows names of modules with numbers above 0",
                              path.string(), key, module, value.dump()));
    pattern.emplace_back(module, value.get<double>());
  }
  return pattern;
}

double value_for(const Pattern& pattern, const std::string& module, double otherwise) {
  for (const auto& [end, value] : pattern)
    if (ends_like(module, end)) return value;
  return otherwise;
}

struct Config {
  std::int64_t rank = 0;
  double alpha = 0, dropout = 0;
  bool rank_stabilised = false;
  Pattern ranks, alphas;
};

Config read_config(const std::filesystem::path& directory) {
  auto config = open_config(directory);
  Config saved;
  config.choice("peft_type", "LORA", {"LORA"});
  config.only("task_type", {"\"CAUSAL_LM\""});
  saved.rank = config.positive("r");
  saved.alpha = config.required_real("lora_alpha");
  saved.dropout = config.real("lora_dropout", 0);
  saved.rank_stabilised = config.flag("use_rslora", false);
  for (const auto* off : {"use_dora", "lora_bias", "use_qalora", "use_bdlora", "ensure_weight_tying"})
    config.only(off, {"false"});
  config.only("loftq_config", {"{}"});
  config.only("bias", {"\"none\""});
  config.only("modules_to_save", {"[]"});
  // The other ways to initialise change the base when PEFT loads the adapter.
  config.only("init_lora_weights", {"true", "false", "\"gaussian\"", "\"orthogonal\""});
  config.inert({{"target_modules", "the tensors' names say it"},
                {"exclude_modules", "the tensors' names say it"},
                {"layers_to_transform", "the tensors' names say it"},
                {"layers_pattern", "the tensors' names say it"},
                {"rank_pattern", "read below, in its order"},
                {"alpha_pattern", "read below, in its order"},
                {"fan_in_fan_out", "how the base stores its weights; the pair is the same"},
                {"base_model_name_or_path", "where the base came from"},
                {"revision", "where the base came from"},
                {"auto_mapping", "names of Python classes"},
                {"peft_version", "who wrote the file"},
                {"inference_mode", "how Python loads it"},
                {"megatron_core", "a module's name, used with megatron_config only"},
                {"qalora_group_size", "used with use_qalora only"}});
  config.finish();
  saved.ranks = read_pattern(directory, "rank_pattern");
  saved.alphas = read_pattern(directory, "alpha_pattern");
  return saved;
}

at::Tensor load_pair_half(const hf::SafetensorsFile& file, const std::string& name, std::vector<std::int64_t> shape) {
  const auto* stored = file.find(name);
  if (!stored) throw Error(fmt::format("{}: tensor '{}' is missing", file.path().string(), name));
  if (stored->shape != shape)
    throw Error(fmt::format("{}: tensor '{}' is {}, but this model and r make it {}", file.path().string(), name,
                            fmt::join(stored->shape, " x "), fmt::join(shape, " x ")));
  return hf::load_tensor(*stored, DType::f32);
}

// Rank and alpha of most pairs: what stands in r and lora_alpha.
std::pair<std::int64_t, double> most_common(const Saved& saved) {
  std::map<std::pair<std::int64_t, double>, std::size_t> counts;
  for (const auto& [module, pair] : saved.pairs) ++counts[{pair.A.size(0), pair.alpha}];
  return std::ranges::max_element(counts, {}, [](const auto& one) { return one.second; })->first;
}

nlohmann::ordered_json number(double value) {  // 16, not 16.0
  if (value == std::floor(value)) return static_cast<std::int64_t>(value);
  return value;
}

}  // namespace

std::vector<std::string> shortest_targets(std::span<const Module> all, const std::vector<std::string>& chosen) {
  const std::set<std::string> wanted(chosen.begin(), chosen.end());
  auto exact = [&](std::string_view end) {
    return std::ranges::all_of(all,
                               [&](const Module& m) { return !ends_like(m.name, end) || wanted.contains(m.name); });
  };
  std::set<std::string> targets;
  for (const auto& name : wanted) {
    auto dot = name.rfind('.');
    while (dot != std::string::npos && !exact(std::string_view(name).substr(dot + 1)))
      dot = dot == 0 ? std::string::npos : name.rfind('.', dot - 1);
    targets.insert(dot == std::string::npos ? name : name.substr(dot + 1));
  }
  return {targets.begin(), targets.end()};
}

void write_peft(const Saved& saved, std::span<const Module> all, const std::string& base,
                const std::filesystem::path& directory) {
  std::vector<std::string> chosen;
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const auto& [module, pair] : saved.pairs) {
    chosen.push_back(module);
    tensors.emplace_back(fmt::format("{}{}.lora_A.weight", kPrefix, module), pair.A.detach());
    tensors.emplace_back(fmt::format("{}{}.lora_B.weight", kPrefix, module), pair.B.detach());
  }
  const auto [rank, alpha] = most_common(saved);
  auto ranks = nlohmann::ordered_json::object(), alphas = nlohmann::ordered_json::object();
  for (const auto& [module, pair] : saved.pairs) {
    if (pair.A.size(0) != rank) ranks[module] = pair.A.size(0);
    if (pair.alpha != alpha) alphas[module] = number(pair.alpha);
  }
  const bool transposed = std::ranges::any_of(
      all, [&](const Module& module) { return module.stored_transposed && saved.pairs.contains(module.name); });
  nlohmann::ordered_json config = {{"peft_type", "LORA"},
                                   {"task_type", "CAUSAL_LM"},
                                   {"base_model_name_or_path", base},
                                   {"inference_mode", true},
                                   {"r", rank},
                                   {"lora_alpha", number(alpha)},
                                   {"lora_dropout", saved.dropout},
                                   {"target_modules", shortest_targets(all, chosen)},
                                   {"fan_in_fan_out", transposed},
                                   {"bias", "none"},
                                   {"use_rslora", saved.rank_stabilised},
                                   {"use_dora", false},
                                   {"init_lora_weights", true},
                                   {"modules_to_save", nullptr},
                                   {"rank_pattern", ranks},
                                   {"alpha_pattern", alphas},
                                   {"peft_version", "0.21.0"}};
  std::filesystem::create_directories(directory);
  hf::save_tensors(directory / kTensors, tensors);
  write_file_atomically(directory / kConfig, config.dump(2) + "\n", Durability::Process);
}

Saved read_peft(const std::filesystem::path& directory, std::span<const Module> all) {
  const auto config = read_config(directory);
  Saved saved{.dropout = config.dropout, .rank_stabilised = config.rank_stabilised};
  const hf::SafetensorsFile file(directory / kTensors);
  std::set<std::string> known;
  for (const auto& module : all) {
    const auto stem = fmt::format("{}{}", kPrefix, module.name);
    const auto a = stem + ".lora_A.weight", b = stem + ".lora_B.weight";
    if (!file.find(a) && !file.find(b)) continue;
    if (module.kind != Module::Kind::Linear && module.kind != Module::Kind::Head)
      throw Error(fmt::format("{}: a pair for '{}', which is no linear module; not supported by adapter lora",
                              file.path().string(), module.name));
    const auto rank = static_cast<std::int64_t>(value_for(config.ranks, module.name, static_cast<double>(config.rank)));
    saved.pairs[module.name] = {load_pair_half(file, a, {rank, module.in}), load_pair_half(file, b, {module.out, rank}),
                                value_for(config.alphas, module.name, config.alpha)};
    known.insert({a, b});
  }
  for (const auto& tensor : file.tensors())
    if (!known.contains(tensor.name))
      throw Error(fmt::format("{}: tensor '{}' belongs to no module of this model", file.path().string(), tensor.name));
  if (saved.pairs.empty()) throw Error(fmt::format("{}: holds no tensor", file.path().string()));
  return saved;
}

bool is_peft_lora(const std::filesystem::path& directory) {
  if (!std::filesystem::exists(directory / kConfig) || !std::filesystem::exists(directory / kTensors)) return false;
  try {
    return open_config(directory).text("peft_type", "") == "LORA";
  } catch (const Error&) {
    return false;  // not a file of ours
  }
}

}  // namespace hansa::lora
