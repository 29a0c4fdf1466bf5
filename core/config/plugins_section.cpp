#include "config/plugins_section.hpp"

#include <stdexcept>

#include <fmt/format.h>

#include "config/pipeline_file.hpp"
#include "config/sections.hpp"

namespace hansa::config {
namespace {

struct NoPlugins final : ComponentCatalog {  // none of the section's values is a component
  const HansaComponent* find(std::string_view, std::string_view) const override { return nullptr; }
  std::vector<std::string> names(std::string_view) const override { return {}; }
  std::string remark(std::string_view, std::string_view) const override { return {}; }
};

bool is_digest(std::string_view text) {
  constexpr std::string_view kPrefix = "sha256:";
  return text.starts_with(kPrefix) && text.size() == kPrefix.size() + 64 &&
         text.find_first_not_of("0123456789abcdef", kPrefix.size()) == std::string_view::npos;
}

const Node& item_of(const Node& table, const char* key, std::size_t index) {
  return table.find(key)->value.items[index];
}

void check(const Reading& r, const Node& table, PluginsSection& section) {
  for (std::size_t i = 0; i < section.keys.size(); ++i)
    if (auto& key = section.keys[i]; !key.starts_with("ed25519:"))
      key = path_of(r.sources, item_of(table, "keys", i).span, key).string();
  for (std::size_t i = 0; i < section.digests.size(); ++i)
    if (const auto& digest = section.digests[i]; !is_digest(digest))
      r.error(item_of(table, "digests", i).span, fmt::format("`plugins.digests.{}`: \"{}\" is no digest", i, digest),
              "write sha256: and 64 of 0-9a-f, as `hansa plugins verify` prints them");
  if (section.require_signed && section.keys.empty() && section.digests.empty())
    r.error(table.find("require_signed")->value.span,
            "`plugins.require_signed` is true, but no key and no digest is listed: no plugin could be loaded",
            "add keys = [\"release.pub\"], a public key that `hansa plugins keygen` made, or digests = [\"sha256:…\"]");
}

}  // namespace

PluginsSection read_plugins_section(const Reading& r, const Node& root) {
  const auto* entry = root.find("plugins");
  if (!entry) return {};
  const auto& table = entry->value;
  const Place place{"plugins", entry->key_span};
  if (table.kind != Node::Kind::Table) {
    r.error(entry->key_span, fmt::format("`plugins` is {}, but must be a section", name_of(table.kind)),
            "write [plugins] on a line of its own, and its keys below; where plugins lie is said by `plugin_path`");
    return {};
  }
  const auto schema = make_sections().plugins;
  const auto before = r.diagnostics.size();
  refuse_unknown(r, table, names_of(schema.params()), place);
  const auto value = read_params(r, schema.params(), &table, place);
  if (r.diagnostics.size() != before) return {};
  auto section = schema.read(value);
  check(r, table, section);
  return section;
}

PluginsSection PipelineFile::plugins(std::vector<Diagnostic>& problems) const {
  const NoPlugins catalog;
  std::vector<Setting> unsaid;
  return read_plugins_section({catalog, state_->sources, problems, unsaid, Files::Look}, state_->root);
}

}  // namespace hansa::config
