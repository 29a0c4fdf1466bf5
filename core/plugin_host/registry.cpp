#include "plugin_host/registry.hpp"

#include <algorithm>
#include <cstdlib>

#include <fmt/ranges.h>
#include <hansa/schema.hpp>

#include "plugin_host/guarded_path.hpp"
#include "plugin_host/table_check.hpp"

namespace hansa {
namespace {

namespace fs = std::filesystem;

std::pair<std::string_view, std::string_view> split_version(std::string_view name) {
  const auto at = name.find('@');
  if (at == std::string_view::npos) return {name, {}};
  return {name.substr(0, at), name.substr(at + 1)};
}
constexpr std::string_view kTakeOne = "take one of the two files off the search path, or rename what it offers";
std::string_view major_of(std::string_view version) { return version.substr(0, version.find('.')); }

}  // namespace

std::vector<SearchPath> search_paths(std::span<const fs::path> from_command_line, std::span<const fs::path> from_file) {
  std::vector<SearchPath> paths;
  for (const auto& path : from_command_line) paths.push_back({path, "--plugin-path"});
  for (const auto& path : from_file) paths.push_back({path, "plugin_path"});
  if (const char* set = std::getenv("HANSA_PLUGIN_PATH")) {
    std::string_view rest = set;
    while (!rest.empty()) {
      const auto end = std::min(rest.find(':'), rest.size());
      if (end > 0) paths.push_back({fs::path(rest.substr(0, end)), "HANSA_PLUGIN_PATH"});
      rest.remove_prefix(std::min(end + 1, rest.size()));
    }
  }
  std::error_code ignored;
  const auto program = fs::read_symlink("/proc/self/exe", ignored);
  // The build tree keeps programs two folders below its root (apps/hansa), an installed tree one (bin).
  const auto folder = program.parent_path();
  for (const auto& root : {folder.parent_path(), folder.parent_path().parent_path()})
    if (const auto path = root / "lib/hansa/plugins"; fs::is_directory(path, ignored))
      paths.push_back({path, "the install location"});
  return paths;
}

std::string_view name_of(Outcome outcome) {
  switch (outcome) {
    case Outcome::Loaded: return "loaded";
    case Outcome::Skipped: return "skipped";
    case Outcome::Refused: return "refused";
  }
  return "?";
}

StrategyRegistry::StrategyRegistry(BuildNote host, std::vector<RevisionAdapter> adapters)
    : host_(std::move(host)), adapters_(std::move(adapters)) {
  for (const auto& adapter : adapters_) {
    auto key = fmt::format("kind.{}", adapter.from);
    if (!hansa::find(host_, key)) host_.emplace_back(std::move(key), adapter.hash);
  }
}

const RevisionAdapter* StrategyRegistry::adapter(std::string_view from, std::string_view to) const {
  for (const auto& adapter : adapters_)
    if (adapter.from == from && adapter.to == to) return &adapter;
  return nullptr;
}

void StrategyRegistry::scan(const SearchPath& search) {
  std::error_code failed;
  const auto path = fs::weakly_canonical(fs::absolute(search.path), failed);
  const auto add_row = [&](std::string why) {
    files_.push_back({failed ? search.path : path, search, Outcome::Refused, std::move(why), nullptr, {}});
  };
  if (failed) return add_row(fmt::format("cannot be read: {}", failed.message()));
  const auto status = fs::status(path, failed);
  if (!fs::exists(status)) return add_row("does not exist");
  const bool directory = fs::is_directory(status);
  if (trust_.require_signed)  // by the way that was given, links and all; the files' own ways are looked at one by one
    if (auto why = why_unguarded(fs::absolute(search.path))) return add_row(std::move(*why));
  if (!directory) return look_at(path, search);

  std::vector<fs::path> entries;
  for (fs::directory_iterator entry(path, failed), end; !failed && entry != end; entry.increment(failed)) {
    std::error_code ignored;
    if (!entry->is_directory(ignored)) entries.push_back(entry->path());
  }
  if (failed) add_row(fmt::format("cannot be listed: {}", failed.message()));
  std::sort(entries.begin(), entries.end());
  for (const auto& entry : entries) look_at(entry, search);
}

std::optional<std::string> StrategyRegistry::shadowed(const fs::path& path) const {
  for (const auto& earlier : files_) {
    if (earlier.path == path) return fmt::format("was already looked at (by {})", earlier.found_by.from);
    if (earlier.outcome == Outcome::Loaded && earlier.path.filename() == path.filename())
      return fmt::format("{} was found first, by {}", earlier.path.string(), earlier.found_by.from);
  }
  return std::nullopt;
}

// Ids are unique: a plugin's among plugins, a component's within its kind.
std::optional<std::string> StrategyRegistry::clash(const HansaPlugin& plugin) const {
  for (const auto& earlier : files_)
    if (earlier.plugin && std::string_view(earlier.plugin->id) == plugin.id)
      return fmt::format("has the plugin id {}, which {} has already; this host needs one of each: {}", plugin.id,
                         earlier.path.string(), kTakeOne);
  for (std::uint32_t i = 0; i < plugin.component_count; ++i) {
    const auto& component = *plugin.components[i];
    const auto held = components_.find(std::pair(std::string(kind_of(component)), std::string(component.id)));
    if (held != components_.end())
      return fmt::format("offers {} '{}', which {} offers already; this host needs one of each: {}", kind_of(component),
                         component.id, file_of(*held->second).path.string(), kTakeOne);
  }
  return std::nullopt;
}

Result<OpenedPlugin> StrategyRegistry::open(PluginFile& row) const {
  if (!trust_.says_anything()) return open_plugin(row.path, host_);
  auto trusted = open_trusted(row.path, trust_);
  if (!trusted) return Result<OpenedPlugin>::failure(trusted.error());
  row.voucher = std::move(trusted.value().voucher);
  return open_plugin(trusted.value().file, host_);
}

void StrategyRegistry::look_at(const fs::path& path, const SearchPath& search) {
  PluginFile row{path, search, Outcome::Skipped, {}, nullptr, {}};
  if (path.extension() == kSignatureSuffix) {
    row.why = "is a signature";
  } else if (path.extension() != ".so") {
    row.why = "its name does not end in .so";
  } else if (std::error_code ignored; !fs::is_regular_file(path, ignored)) {  // opening a pipe would wait for ever
    row.outcome = Outcome::Refused;
    row.why = "is not a regular file";
  } else if (auto earlier = shadowed(path)) {
    row.why = std::move(*earlier);
  } else if (auto opened = open(row); !opened) {
    row.outcome = Outcome::Refused;
    row.why = opened.error();
  } else if (auto why = clash(*opened.value().plugin)) {
    row.outcome = Outcome::Refused;
    row.why = std::move(*why);
  } else {
    row.outcome = Outcome::Loaded;
    row.plugin = opened.value().plugin;
    row.note = std::move(opened.value().note);
    row.sha256 = std::move(opened.value().sha256);
  }
  files_.push_back(std::move(row));
  const auto& kept = files_.back();
  if (!kept.plugin) return;
  for (std::uint32_t i = 0; i < kept.plugin->component_count; ++i) {
    const auto* component = kept.plugin->components[i];
    components_[{std::string(kind_of(*component)), component->id}] = component;
    owners_[component] = &kept;
  }
}

const HansaComponent* StrategyRegistry::find(std::string_view kind, std::string_view name) const {
  const auto [id, version] = split_version(name);
  const auto held = components_.find(std::pair(std::string(kind), std::string(id)));
  if (held == components_.end()) return nullptr;
  if (id.size() != name.size() && version != major_of(file_of(*held->second).plugin->version)) return nullptr;
  return held->second;
}

std::vector<std::string> StrategyRegistry::names(std::string_view kind) const {
  std::vector<std::string> names;
  for (const auto& [key, component] : components_)
    if (key.first == kind) names.push_back(key.second);
  return names;
}

std::string StrategyRegistry::remark(std::string_view kind, std::string_view name) const {
  const auto [id, version] = split_version(name);
  if (const auto* other = find(kind, id); other && id.size() != name.size())
    return fmt::format("{} is installed in version {}", id, file_of(*other).plugin->version);
  for (const auto& file : files_)
    if (file.outcome == Outcome::Refused && file.path.stem() == fmt::format("hansa_{}", id))
      return fmt::format("{} {}", file.path.string(), file.why);
  if (trust_.require_signed)
    for (const auto& file : files_)
      if (file.outcome == Outcome::Refused && file.path.extension() != ".so" && file.why.starts_with("lies "))
        return fmt::format("{} {}", file.path.string(), file.why);
  std::vector<std::string> elsewhere;
  for (const auto& [key, component] : components_)
    if (key.second == id && key.first != kind) elsewhere.push_back(key.first);
  return elsewhere.empty() ? std::string()
                           : fmt::format("{} is a component of kind {}", id, fmt::join(elsewhere, ", "));
}

std::vector<std::string> StrategyRegistry::kinds() const {
  std::vector<std::string> kinds;
  for (const auto& [key, component] : components_)
    if (kinds.empty() || kinds.back() != key.first) kinds.push_back(key.first);
  return kinds;
}

std::vector<const HansaComponent*> StrategyRegistry::components(std::string_view kind) const {
  std::vector<const HansaComponent*> all;
  for (const auto& [key, component] : components_)
    if (kind.empty() || key.first == kind) all.push_back(component);
  return all;
}

const PluginFile& StrategyRegistry::file_of(const HansaComponent& component) const { return *owners_.at(&component); }

std::string StrategyRegistry::label_of(const HansaComponent& component) const {
  return fmt::format("{} {} {}", kind_of(component), component.id, file_of(component).plugin->version);
}

}  // namespace hansa
