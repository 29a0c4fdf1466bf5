#include "hf/json_config.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "hf/json_file.hpp"

namespace hansa::hf {
namespace {

// Keys that every Transformers config may have and that change nothing we compute. Reviewed: add a key only with its reason.
constexpr InertKey kInertEverywhere[] = {
    {"architectures", "names of Python classes; model_type decides"},
    {"model_type", "already read: it chose the architecture"},
    {"transformers_version", "who wrote the file"},
    {"_name_or_path", "where the file came from"},
    {"_commit_hash", "where the file came from"},
    {"torch_dtype", "what the weights are stored in: the files say it themselves; the run chooses the compute dtype"},
    {"dtype", "newer name of torch_dtype"},
    {"use_cache", "generation chooses"},
    {"initializer_range", "read where a model is initialised; not part of the function"},
    {"bos_token_id", "read with the tokenizer"},
    {"eos_token_id", "read with the tokenizer"},
    {"pad_token_id", "padding is masked by segments"},
    {"sep_token_id", "encoder-decoder or classification"},
    {"cls_token_id", "encoder-decoder or classification"},
    {"decoder_start_token_id", "encoder-decoder"},
    {"forced_bos_token_id", "sampling"},
    {"forced_eos_token_id", "sampling"},
    {"prefix", "sampling"},
    {"task_specific_params", "defaults of pipelines"},
    {"output_attentions", "what Python returns"},
    {"output_hidden_states", "what Python returns"},
    {"return_dict", "what Python returns"},
    {"torchscript", "how Python runs it"},
    {"gradient_checkpointing", "memory, not values"},
    {"chunk_size_feed_forward", "memory, not values"},
    {"attn_implementation", "which kernel"},
    {"_attn_implementation", "which kernel"},
    {"_attn_implementation_autoset", "which kernel"},
    {"id2label", "classification heads read it"},
    {"label2id", "classification heads read it"},
    {"num_labels", "classification heads read it"},
    {"problem_type", "classification heads read it"},
    {"finetuning_task", "history"},
    {"tokenizer_class", "tokenizer.json decides"},
    {"tf_legacy_loss", "TensorFlow"},
    {"use_bfloat16", "TensorFlow"},
    {"unsloth_version", "who wrote the file"},
    {"unsloth_fixed", "who wrote the file"},
};

bool inert_everywhere(std::string_view key) {
  return std::any_of(std::begin(kInertEverywhere), std::end(kInertEverywhere),
                     [&](const auto& entry) { return entry.key == key; });
}

// Old configs carry these for every model; all mean "not used" with the value that says so.
bool neutral_leftover(std::string_view key, const nlohmann::json& value) {
  if (key == "is_decoder" || key == "is_encoder_decoder" || key == "add_cross_attention" ||
      key == "cross_attention_hidden_size" || key == "tie_encoder_decoder" || key == "pruned_heads" ||
      key == "no_repeat_ngram_size" || key == "encoder_no_repeat_ngram_size" || key == "bad_words_ids" ||
      key == "suppress_tokens" || key == "begin_suppress_tokens" || key == "remove_invalid_values" ||
      key == "exponential_decay_length_penalty") {
    return value == false || value == 0 || value.empty();
  }
  // Sampling defaults that old versions wrote into config.json: generation has its own.
  for (const std::string_view sampling :
       {"do_sample", "early_stopping", "max_length", "min_length", "num_beams", "num_beam_groups", "diversity_penalty",
        "temperature", "top_k", "top_p", "typical_p", "repetition_penalty", "length_penalty", "num_return_sequences",
        "output_scores", "return_dict_in_generate"}) {
    if (key == sampling) return true;
  }
  return false;
}

bool is_integer(const nlohmann::json& value) {
  if (value.is_number_unsigned()) return value.get<std::uint64_t>() <= static_cast<std::uint64_t>(INT64_MAX);
  return value.is_number_integer();
}

}  // namespace

struct JsonConfig::State {
  nlohmann::json object;
  std::string where;   // "DIR/config.json"
  std::string prefix;  // "rope_scaling."
  std::string architecture;
  bool whole = true;  // a model's config: the keys that all of them have are known here
  std::set<std::string, std::less<>> used;
  std::map<std::string, JsonConfig, std::less<>> parts;
};

JsonConfig::JsonConfig(std::unique_ptr<State> state) : state_(std::move(state)) {}
JsonConfig::~JsonConfig() = default;
JsonConfig::JsonConfig(JsonConfig&&) noexcept = default;
JsonConfig& JsonConfig::operator=(JsonConfig&&) noexcept = default;

JsonConfig JsonConfig::read(const std::filesystem::path& directory, std::string architecture) {
  const auto path = directory / "config.json";
  auto state = std::make_unique<State>();
  state->object = read_json_file(path);
  state->where = path.string();
  state->architecture = std::move(architecture);
  if (!state->object.is_object()) throw Error(state->where + " is not a JSON object");
  return JsonConfig(std::move(state));
}

JsonConfig JsonConfig::parse(std::string_view text, std::string where, std::string architecture) {
  auto state = std::make_unique<State>();
  state->object = parse_json(text, where);
  state->where = std::move(where);
  state->architecture = std::move(architecture);
  if (!state->object.is_object()) throw Error(state->where + " is not a JSON object");
  return JsonConfig(std::move(state));
}

bool JsonConfig::has(std::string_view key) const { return !is_absent(state_->object, std::string(key).c_str()); }

const nlohmann::json* JsonConfig::use(std::string_view key) {
  state_->used.emplace(key);
  return has(key) ? &state_->object.at(std::string(key)) : nullptr;
}

template <class Value, class Accept>
std::optional<Value> JsonConfig::get(std::string_view key, std::string_view expected, Accept accept) {
  const auto* value = use(key);
  if (!value) return std::nullopt;
  if (!accept(*value)) {
    throw Error(fmt::format("{}: {}{} = {} is not {}", state_->where, state_->prefix, key, value->dump(), expected));
  }
  return value->template get<Value>();
}

template <class Value, class Accept>
std::optional<std::vector<Value>> JsonConfig::get_list(std::string_view key, std::string_view expected, Accept accept) {
  const auto* value = use(key);
  if (!value) return std::nullopt;
  if (accept(*value)) return std::vector<Value>{value->template get<Value>()};
  if (!value->is_array() || !std::all_of(value->begin(), value->end(), accept)) {
    throw Error(
        fmt::format("{}: {}{} = {} is not a list of {}", state_->where, state_->prefix, key, value->dump(), expected));
  }
  return value->template get<std::vector<Value>>();
}

std::optional<std::int64_t> JsonConfig::integer(std::string_view key) {
  return get<std::int64_t>(key, "a whole number", is_integer);
}
std::optional<double> JsonConfig::real(std::string_view key) {
  return get<double>(key, "a number", [](const auto& value) { return value.is_number(); });
}
std::optional<bool> JsonConfig::flag(std::string_view key) {
  return get<bool>(key, "true or false", [](const auto& value) { return value.is_boolean(); });
}
std::optional<std::string> JsonConfig::text(std::string_view key) {
  return get<std::string>(key, "a text", [](const auto& value) { return value.is_string(); });
}
std::optional<std::vector<std::int64_t>> JsonConfig::integers(std::string_view key) {
  return get_list<std::int64_t>(key, "whole numbers", is_integer);
}
std::optional<std::vector<double>> JsonConfig::reals(std::string_view key) {
  return get_list<double>(key, "numbers", [](const auto& value) { return value.is_number(); });
}
std::optional<std::vector<std::string>> JsonConfig::texts(std::string_view key) {
  return get_list<std::string>(key, "texts", [](const auto& value) { return value.is_string(); });
}

JsonConfig* JsonConfig::object(std::string_view key) {
  const auto* value = use(key);
  if (!value) return nullptr;
  if (!value->is_object()) {
    throw Error(fmt::format("{}: {}{} = {} is not an object", state_->where, state_->prefix, key, value->dump()));
  }
  if (const auto at = state_->parts.find(key); at != state_->parts.end()) return &at->second;
  auto part = std::make_unique<State>();
  part->object = *value;
  part->where = state_->where;
  part->prefix = fmt::format("{}{}.", state_->prefix, key);
  part->architecture = state_->architecture;
  part->whole = false;
  return &state_->parts.emplace(std::string(key), JsonConfig(std::move(part))).first->second;
}

JsonConfig* JsonConfig::whole(std::string_view key) {
  auto* part = object(key);
  if (part) part->state_->whole = true;
  return part;
}

bool JsonConfig::stands(std::string_view key) const { return state_->object.contains(std::string(key)); }
std::optional<std::int64_t> JsonConfig::positive_or_null(std::string_view key, std::int64_t when_absent) {
  const auto value = positive(key, when_absent);
  return stands(key) && !has(key) ? std::nullopt : std::optional(value);
}
std::optional<double> JsonConfig::real_or_null(std::string_view key, double when_absent) {
  const auto value = real(key, when_absent);
  return stands(key) && !has(key) ? std::nullopt : std::optional(value);
}

std::int64_t JsonConfig::integer(std::string_view key, std::int64_t when_absent) {
  return integer(key).value_or(when_absent);
}
double JsonConfig::real(std::string_view key, double when_absent) { return real(key).value_or(when_absent); }
bool JsonConfig::flag(std::string_view key, bool when_absent) { return flag(key).value_or(when_absent); }
std::string JsonConfig::text(std::string_view key, std::string_view when_absent) {
  return text(key).value_or(std::string(when_absent));
}

void JsonConfig::missing(std::string_view key) const {
  throw Error(
      fmt::format("{}: {}{} is missing; {} needs it", state_->where, state_->prefix, key, state_->architecture));
}
std::int64_t JsonConfig::required_integer(std::string_view key) {
  if (const auto value = integer(key)) return *value;
  missing(key);
}
double JsonConfig::required_real(std::string_view key) {
  if (const auto value = real(key)) return *value;
  missing(key);
}
std::string JsonConfig::required_text(std::string_view key) {
  if (auto value = text(key)) return *std::move(value);
  missing(key);
}
std::int64_t JsonConfig::positive(std::string_view key) {
  if (!has(key)) missing(key);
  return positive(key, 1);
}
std::int64_t JsonConfig::positive(std::string_view key, std::int64_t when_absent) {
  const auto value = integer(key, when_absent);
  if (value < 1)
    throw Error(fmt::format("{}: {}{} = {}, but has to be at least 1", state_->where, state_->prefix, key, value));
  return value;
}

double JsonConfig::fraction(std::string_view key, double when_absent) {
  const double value = real(key, when_absent);
  if (!(value >= 0 && value < 1)) refuse(key, "0 to below 1");
  return value;
}

std::string JsonConfig::choice(std::string_view key, std::string_view when_absent,
                               std::initializer_list<std::string_view> supported) {
  const auto value = text(key, when_absent);
  if (std::find(supported.begin(), supported.end(), value) == supported.end()) {
    throw Error(fmt::format("{}: {}{} = \"{}\"{} is not supported by {}; supported: {}", state_->where, state_->prefix,
                            key, value, has(key) ? "" : " (the default)", state_->architecture,
                            fmt::join(std::vector(supported), ", ")));
  }
  return value;
}

void JsonConfig::only(std::string_view key, std::initializer_list<std::string_view> json_values) {
  const auto* value = use(key);
  if (!value) return;
  for (const auto allowed : json_values) {
    if (*value == nlohmann::json::parse(allowed)) return;
  }
  refuse(key, fmt::format("{}", fmt::join(std::vector(json_values), ", ")));
}

void JsonConfig::refuse(std::string_view key, std::string_view supported) const {
  const auto value = has(key) ? state_->object.at(std::string(key)).dump() : "null";
  throw Error(fmt::format("{}: {}{} = {} is not supported by {}; supported: {}", state_->where, state_->prefix, key,
                          value, state_->architecture, supported));
}

void JsonConfig::inert(std::initializer_list<InertKey> keys) {
  for (const auto& entry : keys) state_->used.emplace(entry.key);
}

void JsonConfig::collect_unused(std::vector<std::string>& into) const {
  for (const auto& [key, value] : state_->object.items()) {
    if (state_->used.contains(key) || value.is_null()) continue;
    if (state_->whole && (inert_everywhere(key) || neutral_leftover(key, value))) continue;
    auto text = value.dump();
    if (text.size() > 80) text = text.substr(0, 77) + "...";
    into.push_back(fmt::format("{}{} = {}", state_->prefix, key, text));
  }
  for (const auto& [key, part] : state_->parts) part.collect_unused(into);
}

void JsonConfig::finish() const {
  std::vector<std::string> unused;
  collect_unused(unused);
  if (unused.empty()) return;
  throw Error(fmt::format("{}: not supported by {}: {}", state_->where, state_->architecture, fmt::join(unused, "; ")));
}

std::string model_type_of(const std::filesystem::path& directory) {
  try {
    const auto config = read_json_file(directory / "config.json");
    return config.is_object() && config.contains("model_type") && config.at("model_type").is_string()
               ? config.at("model_type").get<std::string>()
               : std::string();
  } catch (const Error&) {
    return {};  // another model's business, or nobody's
  }
}

}  // namespace hansa::hf
