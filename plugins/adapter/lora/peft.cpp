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

Saved read_config(const std::filesystem::path& directory) {
  auto config = open_config(directory);
  Saved saved;
  config.choice("peft_type", "LORA", {"LORA"});
  config.only("task_type", {"\"CAUSAL_LM\""});
  saved.rank = config.positive("r");
  saved.alpha = config.required_real("lora_alpha");
  saved.dropout = config.real("lora_dropout", 0);
  saved.rank_stabilised = config.flag("use_rslora", false);
  for (const auto* off : {"use_dora", "lora_bias", "use_qalora", "use_bdlora", "ensure_weight_tying"})
    config.only(off, {"false"});
  for (const auto* empty : {"rank_pattern", "alpha_pattern", "loftq_config"}) config.only(empty, {"{}"});
  config.only("bias", {"\"none\""});
  config.only("modules_to_save", {"[]"});
  // The other ways to initialise change the base when PEFT loads the adapter.
  config.only("init_lora_weights", {"true", "false", "\"gaussian\"", "\"orthogonal\""});
  config.inert({{"target_modules", "the tensors' names say it"},
                {"exclude_modules", "the tensors' names say it"},
                {"layers_to_transform", "the tensors' names say it"},
                {"layers_pattern", "the tensors' names say it"},
                {"fan_in_fan_out", "how the base stores its weights; the pair is the same"},
                {"base_model_name_or_path", "where the base came from"},
                {"revision", "where the base came from"},
                {"auto_mapping", "names of Python classes"},
                {"peft_version", "who wrote the file"},
                {"inference_mode", "how Python loads it"},
                {"megatron_core", "a module's name, used with megatron_config only"},
                {"qalora_group_size", "used with use_qalora only"}});
  config.finish();
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
  const bool transposed = std::ranges::any_of(
      all, [&](const Module& module) { return module.stored_transposed && saved.pairs.contains(module.name); });
  nlohmann::ordered_json config = {{"peft_type", "LORA"},
                                   {"task_type", "CAUSAL_LM"},
                                   {"base_model_name_or_path", base},
                                   {"inference_mode", true},
                                   {"r", saved.rank},
                                   {"lora_alpha", saved.alpha},
                                   {"lora_dropout", saved.dropout},
                                   {"target_modules", shortest_targets(all, chosen)},
                                   {"fan_in_fan_out", transposed},
                                   {"bias", "none"},
                                   {"use_rslora", saved.rank_stabilised},
                                   {"use_dora", false},
                                   {"init_lora_weights", true},
                                   {"modules_to_save", nullptr},
                                   {"rank_pattern", nlohmann::json::object()},
                                   {"alpha_pattern", nlohmann::json::object()},
                                   {"peft_version", "0.21.0"}};
  if (saved.alpha == std::floor(saved.alpha)) config["lora_alpha"] = static_cast<std::int64_t>(saved.alpha);
  std::filesystem::create_directories(directory);
  hf::save_tensors(directory / kTensors, tensors);
  write_file_atomically(directory / kConfig, config.dump(2) + "\n", Durability::Process);
}

Saved read_peft(const std::filesystem::path& directory, std::span<const Module> all) {
  auto saved = read_config(directory);
  const hf::SafetensorsFile file(directory / kTensors);
  std::set<std::string> known;
  for (const auto& module : all) {
    const auto stem = fmt::format("{}{}", kPrefix, module.name);
    const auto a = stem + ".lora_A.weight", b = stem + ".lora_B.weight";
    if (!file.find(a) && !file.find(b)) continue;
    if (module.kind != Module::Kind::Linear && module.kind != Module::Kind::Head)
      throw Error(fmt::format("{}: a pair for '{}', which is no linear module; not supported by adapter lora",
                              file.path().string(), module.name));
    saved.pairs[module.name] = {load_pair_half(file, a, {saved.rank, module.in}),
                                load_pair_half(file, b, {module.out, saved.rank})};
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
