#include "config/resolver.hpp"

#include <algorithm>
#include <array>
#include <stdexcept>
#include <system_error>
#include <thread>

#include <fmt/format.h>

#include "config/emit.hpp"
#include "config/pipeline_file.hpp"
#include "config/plugins_section.hpp"

namespace hansa::config {
namespace fs = std::filesystem;
namespace {

constexpr std::array kSections{
    "plugins",        "run",     "model",      "adapter",          "trainer",  "data",         "codec",     "downlink",
    "error_feedback", "privacy", "aggregator", "server_optimizer", "selector", "round_policy", "evaluator", "train",
    "evaluation",     "network", "simulation", "report",           "node"};

// "here:port" with a port that exists, or "unix:" and a path that fits a socket address.
std::string why_no_address(const std::string& text) {
  constexpr std::size_t kLongestSocketPath = 107;
  if (text.starts_with("unix:")) {
    const auto length = text.size() - 5;
    return length == 0                   ? "names no path after unix:"
           : length > kLongestSocketPath ? "is too long for a Unix socket (107 bytes)"
                                         : "";
  }
  const auto colon = text.rfind(':');
  if (colon == std::string::npos || colon == 0) return "is neither host:port nor unix:PATH";
  const auto port = text.substr(colon + 1);
  const bool digits = !port.empty() && port.size() <= 5 &&
                      std::all_of(port.begin(), port.end(), [](char c) { return c >= '0' && c <= '9'; });
  return digits && std::stoi(port) <= 65535
             ? ""
             : fmt::format("has the port `{}`, but a port is a number from 0 to 65535", port);
}

}  // namespace

Resolver::Resolver(const Reading& reading, const Node& root, fs::path file) : r_(reading), root_(root) {
  std::error_code code;
  spec_.file = file.empty() ? file : fs::absolute(file, code).lexically_normal();
}

RunSpec Resolver::run() {
  refuse_unknown_sections();
  plugin_path();
  if (r_.files == Files::Look) spec_.plugins = read_plugins_section(r_, root_);
  spec_.run = own_section(sections_.run, "run");
  if (spec_.run.name.empty()) restate("run.name", toml_value(Value::text(spec_.run.name = spec_.file.stem().string())));
  components();
  spec_.train = own_section(sections_.train, "train");
  evaluation();
  spec_.network = own_section(sections_.network, "network");
  if (root_.find("simulation")) spec_.simulation = own_section(sections_.simulation, "simulation");
  spec_.report = own_section(sections_.report, "report");
  if (root_.find("error_feedback")) spec_.error_feedback = own_section(sections_.error_feedback, "error_feedback");
  if (r_.files == Files::Look) nodes();
  check_model();
  check_across();
  return std::move(spec_);
}

Span Resolver::span_of(const std::string& section_name, const std::string& key) const {
  const auto* section = root_.find(section_name);
  if (!section) return {};
  const auto* entry = section->value.find(key);
  return entry ? entry->value.span : section->key_span;
}

void Resolver::restate(const std::string& key, std::string value) {
  for (auto& setting : r_.settings)
    if (setting.key == key) setting.value = value;
}

// The table of a section; null when it was left out or is something else (which is reported).
const Node* Resolver::section(const std::string& name, Place& place) {
  place.prefix = name;
  const auto* entry = root_.find(name);
  if (!entry) return nullptr;
  place.header = entry->key_span;
  if (entry->value.kind == Node::Kind::Table) return &entry->value;
  const bool list = entry->value.kind == Node::Kind::List;
  r_.error(entry->key_span, fmt::format("`{}` is {}, but must be a section", name, name_of(entry->value.kind)),
           list ? fmt::format("write [{}] in single brackets: there is only one", name)
                : fmt::format("write [{}] on a line of its own, and its keys below", name));
  return nullptr;
}

template <class S>
S Resolver::host_section(const Schema<S>& schema, const std::string& name, const Node* table, const Place& place) {
  const auto before = r_.diagnostics.size();
  const auto value = read_params(r_, schema.params(), table, place);
  if (r_.diagnostics.size() == before) return schema.read(value);
  try {
    return schema.read(value);
  } catch (const std::invalid_argument&) {  // something required is missing, which was reported
    return S{};
  }
}

template <class S>
S Resolver::own_section(const Schema<S>& schema, const std::string& name, std::vector<std::string> also_known) {
  Place place;
  const auto* table = section(name, place);
  if (table) {
    auto known = names_of(schema.params());
    known.insert(known.end(), also_known.begin(), also_known.end());
    refuse_unknown(r_, *table, known, place);
  }
  return host_section(schema, name, table, place);
}

void Resolver::refuse_unknown_sections() {
  std::vector<std::string> known(kSections.begin(), kSections.end());
  known.insert(known.end(), {"include", "plugin_path"});
  const std::vector<std::pair<const char*, Params>> owners{
      {"plugins", sections_.plugins.params()}, {"run", sections_.run.params()},
      {"train", sections_.train.params()},     {"evaluation", sections_.evaluation.params()},
      {"network", sections_.network.params()}, {"report", sections_.report.params()}};
  for (const auto& entry : root_.entries) {
    if (std::find(known.begin(), known.end(), entry.key) != known.end()) continue;
    const auto near = near_names(entry.key, known);
    std::string help = near.empty() ? "known sections: " + quoted_list(known, "and")
                                    : fmt::format("did you mean {}?", quoted_list(near, "or"));
    for (const auto& [owner, params] : owners)
      for (const auto& name : names_of(params))
        if (name == entry.key) help = fmt::format("`{}` belongs into [{}]", name, owner);
    const bool table = entry.value.kind == Node::Kind::Table || entry.value.kind == Node::Kind::List;
    r_.error(entry.key_span, fmt::format("unknown {} `{}`", table ? "section" : "key", entry.key), std::move(help));
  }
}

void Resolver::plugin_path() {
  const auto* entry = root_.find("plugin_path");
  if (!entry) return;
  const auto take = [&](const Node& node) {
    if (node.kind != Node::Kind::Text || node.text.empty())
      return r_.error(node.span, "`plugin_path` must be a directory, or a list of directories",
                      "plugin_path = [\"plugins\"]");
    const auto path = path_of(r_.sources, node.span, node.text);
    std::error_code code;
    if (!fs::is_directory(path, code))
      return r_.error(node.span, fmt::format("`plugin_path`: {} is no directory", path.string()),
                      "built plugins lie in a directory; the path is relative to this file");
    spec_.plugin_path.push_back(path);
    r_.setting(fmt::format("plugin_path.{}", spec_.plugin_path.size() - 1), toml_value(Value::path(path.string())),
               node.span);
  };
  if (entry->value.kind == Node::Kind::List)
    std::for_each(entry->value.items.begin(), entry->value.items.end(), take);
  else
    take(entry->value);
}

// ---- components -----------------------------------------------------------------------------------------------------

void Resolver::components() {
  const auto host_keys = [](Params params) {
    auto names = names_of(params);
    names.push_back("use");
    return names;
  };
  Place place;
  const auto* model = section("model", place);
  spec_.model = required_component("model", "model", host_keys(sections_.model.params()));
  spec_.model_host = host_section(sections_.model, "model", model, {"model", place.header});
  spec_.adapter = required_component("adapter", "adapter");
  spec_.trainer = required_component("trainer", "trainer");
  spec_.data = required_component("data_source", "data");
  spec_.codecs = codecs("codec");
  spec_.downlink = codecs("downlink");
  if (const auto* entry = root_.find("privacy"); entry && entry->value.kind == Node::Kind::Table) {
    spec_.privacy = required_component("privacy", "privacy", host_keys(sections_.privacy.params()));
    spec_.privacy_host = host_section(sections_.privacy, "privacy", &entry->value, {"privacy", entry->key_span});
  } else if (entry) {
    section("privacy", place);
  }
  place = {};
  const auto* aggregator = section("aggregator", place);
  spec_.aggregator = required_component("aggregator", "aggregator", host_keys(sections_.weights.params()));
  spec_.weights = host_section(sections_.weights, "aggregator", aggregator, {"aggregator", place.header});
  spec_.server_optimizer = optional_component("server_optimizer", "server_optimizer", HANSA_TRAIT_PLAIN_AVERAGING);
  spec_.selector = optional_component("selector", "selector", HANSA_TRAIT_EVERYONE);
  spec_.round_policy = optional_component("round_policy", "round_policy", 0);
  spec_.evaluator = optional_component("evaluator", "evaluator", 0);
}

ComponentSpec Resolver::required_component(std::string_view kind, const std::string& name,
                                           const std::vector<std::string>& host_keys) {
  Place place;
  if (const auto* table = section(name, place)) return component(kind, name, *table, place, host_keys);
  if (!root_.find(name)) r_.error({}, fmt::format("[{}] is missing", name), choose_one_of(r_, kind));
  ComponentSpec none;
  none.kind = kind;
  return none;
}

ComponentSpec Resolver::optional_component(std::string_view kind, const std::string& name, std::uint64_t trait) {
  Place place;
  if (const auto* table = section(name, place)) return component(kind, name, *table, place, {});
  if (root_.find(name)) return {};
  return default_component(kind, name, trait);
}

ComponentSpec Resolver::component(std::string_view kind, const std::string& name, const Node& table, const Place& place,
                                  const std::vector<std::string>& host_keys) {
  ComponentSpec spec;
  spec.kind = kind;
  const auto* use = table.find("use");
  // What runs at the coordinator only may be unknown to a node.
  constexpr std::array<std::string_view, 4> kCoordinatorSide{"aggregator", "server_optimizer", "selector",
                                                             "round_policy"};
  if (r_.files == Files::Ignore && use &&
      std::find(kCoordinatorSide.begin(), kCoordinatorSide.end(), kind) != kCoordinatorSide.end() &&
      !r_.catalog.find(kind, use->value.text)) {
    spec.use = use->value.text;
    return spec;
  }
  const auto chosen = choose(r_, kind, table, place);
  if (!chosen) return spec;
  spec.use = chosen->use;
  spec.component = chosen->component;
  spec.where = r_.sources.position(chosen->where);
  r_.setting(name + ".use", toml_value(Value::text(spec.use)), chosen->where);
  auto known = names_of(params_of(*spec.component));
  for (const auto& key : host_keys) {
    if (std::find(known.begin(), known.end(), key) != known.end())
      r_.error(chosen->where,
               fmt::format("plugin `{}` declares a parameter `{}`, which is Hansa's own in [{}]", spec.use, key, name),
               "the plugin's author has to rename it");
    known.push_back(key);
  }
  known.push_back("use");
  refuse_unknown(r_, table, known, place);
  finish_component(spec, &table, place);
  return spec;
}

// Parameters, the component's own check of them, and the traits that follow from them.
void Resolver::finish_component(ComponentSpec& spec, const Node* table, const Place& place) {
  const auto count = [this] {
    return std::count_if(r_.diagnostics.begin(), r_.diagnostics.end(),
                         [](const auto& d) { return d.severity == Severity::Error; });
  };
  const auto before = count();
  spec.params = read_params(r_, params_of(*spec.component), table, place);
  spec.traits.struct_size = sizeof(HansaTraits);
  spec.traits.groups = "";
  if (count() != before) return;
  if (const auto traits = check_component(r_, {spec.use, spec.component, {}}, spec.params, table, place))
    spec.traits = *traits;
}

// The most mature component that needs no parameter and has the trait; among equals, the first by name.
ComponentSpec Resolver::default_component(std::string_view kind, const std::string& name, std::uint64_t trait) {
  ComponentSpec best;
  best.kind = kind;
  for (const auto& candidate : r_.catalog.names(kind)) {
    const auto* component = r_.catalog.find(kind, candidate);
    const auto params = component ? params_of(*component) : Params{};
    const bool asks =
        std::any_of(params.begin(), params.end(), [](const auto* p) { return p->flags & HANSA_PARAM_REQUIRED; });
    if (!component || asks || (best.component && best.component->maturity >= component->maturity)) continue;
    std::vector<Diagnostic> unseen;
    std::vector<Setting> unsaid;
    const Reading quiet{r_.catalog, r_.sources, unseen, unsaid, r_.files};
    ComponentSpec spec;
    spec.kind = kind;
    spec.use = candidate;
    spec.component = component;
    Resolver(quiet, root_, {}).finish_component(spec, nullptr, {name, {}});
    if (unseen.empty() && (spec.traits.flags & trait) == trait) best = std::move(spec);
  }
  if (!best.component) {
    if (r_.files == Files::Look) r_.error({}, fmt::format("[{}] is missing", name), choose_one_of(r_, kind));
    return best;
  }
  r_.setting(name + ".use", toml_value(Value::text(best.use)), {});
  for (std::size_t i = 0; i < best.params.size(); ++i)
    r_.setting(name + "." + best.params.key(i), toml_value(best.params.at(i)), {});
  return best;
}

std::vector<ComponentSpec> Resolver::codecs(const std::string& name) {
  std::vector<ComponentSpec> stages;
  const auto* entry = root_.find(name);
  if (!entry) return stages;
  if (entry->value.kind != Node::Kind::List) {
    r_.error(entry->key_span, fmt::format("`{}` is {}, but must be a list of stages", name, name_of(entry->value.kind)),
             fmt::format("write [[{}]] in double brackets, once per stage, in the order of encoding", name));
    return stages;
  }
  for (std::size_t i = 0; i < entry->value.items.size(); ++i) {
    const auto& item = entry->value.items[i];
    const Place place{fmt::format("{}.{}", name, i), item.span};
    if (item.kind != Node::Kind::Table)
      r_.error(item.span, fmt::format("`{}` is {}, but must be a table", place.prefix, name_of(item.kind)),
               fmt::format("write [[{}]]", name));
    else
      stages.push_back(component("compressor", place.prefix, item, place, {}));
  }
  return stages;
}

// ---- what sections say together -------------------------------------------------------------------------------------

void Resolver::evaluation() {
  spec_.evaluation = own_section(sections_.evaluation, "evaluation", {"set"});
  const auto* section = root_.find("evaluation");
  const auto* sets = section ? section->value.find("set") : nullptr;
  if (!sets) return;
  if (sets->value.kind != Node::Kind::List)
    return r_.error(sets->key_span, "`evaluation.set` must be a list of tables",
                    "write [[evaluation.set]] in double brackets, once per set");
  for (std::size_t i = 0; i < sets->value.items.size(); ++i) {
    const auto& item = sets->value.items[i];
    const Place place{fmt::format("evaluation.set.{}", i), item.span};
    if (item.kind != Node::Kind::Table) {
      r_.error(item.span, "`evaluation.set` must be a list of tables", "write [[evaluation.set]]");
      continue;
    }
    refuse_unknown(r_, item, names_of(sections_.evaluation_set.params()), place);
    auto set = host_section(sections_.evaluation_set, "evaluation.set", &item, place);
    if (!set.name.empty()) spec_.evaluation.sets.push_back(std::move(set));
  }
}

void Resolver::check_model() {
  if (r_.files == Files::Ignore) return;
  const auto& path = spec_.model_host.path;
  const auto* section = root_.find("model");
  const auto* written = section ? section->value.find("path") : nullptr;
  if (path.empty()) {
    if (section && !written)
      r_.error(section->key_span, "`model.path` is missing", "path = \"…\": a Hugging Face directory with config.json");
    return;
  }
  std::error_code code;
  if (!fs::exists(path / "config.json", code))
    r_.error(written->value.span, fmt::format("`model.path`: {} holds no config.json", path.string()),
             "a model is a directory as Hugging Face writes it: config.json, *.safetensors, tokenizer.json");
}

void Resolver::check_across() {
  if (const auto problem = why_no_address(spec_.network.listen); !problem.empty())
    r_.error(span_of("network", "listen"), fmt::format("`network.listen`: \"{}\" {}", spec_.network.listen, problem),
             "for example \"127.0.0.1:7800\", or \"unix:/tmp/hansa.sock\"");
  if (spec_.network.lease_seconds < 2 * spec_.network.heartbeat_seconds)
    r_.error(span_of("network", "lease_seconds"),
             fmt::format("`network.lease_seconds` is {}, less than two heartbeats of {} s", spec_.network.lease_seconds,
                         spec_.network.heartbeat_seconds),
             "one late heartbeat would cost a node its slot: lengthen the lease or shorten heartbeat_seconds");
  constexpr auto kNoise = HANSA_TRAIT_CENTRAL_NOISE | HANSA_TRAIT_LOCAL_NOISE;
  if (spec_.privacy_host.epsilon_budget && spec_.privacy.component && !(spec_.privacy.traits.flags & kNoise))
    r_.error(
        span_of("privacy", "epsilon_budget"),
        fmt::format("`privacy.epsilon_budget` is set, but `{}` adds no noise: no epsilon holds", spec_.privacy.use),
        "choose a mechanism with noise, or remove the budget");
  if (auto& compute = spec_.model_host.compute; compute == "auto") {
    compute = name_of(spec_.model_host.base_dtype == BaseDtype::Compute ? DType::f32 : DType::bf16);
    restate("model.compute", toml_value(Value::text(compute)));
  }
  if (spec_.train.threads == 0 && r_.files == Files::Look) {
    const auto cores = static_cast<std::int64_t>(std::max(1u, std::thread::hardware_concurrency()));
    spec_.train.threads = spec_.nodes.size() > 1 ? 1 : cores;
    restate("train.threads", fmt::format("{}", spec_.train.threads));
  }
}

}  // namespace hansa::config
