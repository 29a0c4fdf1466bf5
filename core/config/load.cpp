#include "config/load.hpp"

#include <algorithm>
#include <charconv>

#include "config/pipeline_file.hpp"
#include "config/resolver.hpp"

namespace hansa::config {
namespace {

// The deepest part of a dotted key that somebody wrote: the value itself, or the section's header.
Span written_span(const Node& root, std::string_view key) {
  const Node* node = &root;
  Span found;
  while (!key.empty()) {
    const auto dot = std::min(key.find('.'), key.size());
    const auto part = key.substr(0, dot);
    key.remove_prefix(std::min(dot + 1, key.size()));
    if (node->kind == Node::Kind::List) {
      std::size_t index = 0;
      const auto [end, code] = std::from_chars(part.data(), part.data() + part.size(), index);
      if (code != std::errc() || index >= node->items.size()) break;
      node = &node->items[index];
      found = node->span;
      continue;
    }
    const auto* entry = node->find(part);
    if (!entry) break;
    found = entry->value.kind == Node::Kind::Table || entry->value.kind == Node::Kind::List ? entry->key_span
                                                                                            : entry->value.span;
    node = &entry->value;
  }
  return found;
}

// What has no place in the text belongs to the file as a whole.
void name_the_file(std::vector<Diagnostic>& all, const std::string& file) {
  for (auto& d : all)
    if (d.where.file.empty()) d.where.file = file;
}

}  // namespace

void LoadResult::report(Severity severity, std::string_view key, std::string what, std::string help, int rule) {
  auto d =
      file->state().sources.diagnose(severity, written_span(file->state().root, key), std::move(what), std::move(help));
  d.rule = rule;
  if (d.where.file.empty()) d.where.file = file->state().file.string();
  diagnostics.push_back(std::move(d));
  sort_by_position(diagnostics);
}

LoadResult unresolved(PipelineFile file, std::vector<Diagnostic> problems) {
  LoadResult result;
  result.file = std::make_shared<const PipelineFile>(std::move(file));  // shared: results are copied, sources are not
  const auto& state = result.file->state();
  result.diagnostics = state.diagnostics;
  result.diagnostics.insert(result.diagnostics.end(), problems.begin(), problems.end());
  result.unreadable = state.unreadable;
  result.parsed = state.parsed;
  name_the_file(result.diagnostics, state.file.string());
  sort_by_position(result.diagnostics);
  return result;
}

LoadResult resolve(PipelineFile file, const ComponentCatalog& catalog) {
  auto result = unresolved(std::move(file), {});
  const auto& state = result.file->state();
  if (state.unreadable || !state.parsed) return result;
  const Reading reading{catalog, state.sources, result.diagnostics, result.settings, Files::Look};
  result.spec = Resolver(reading, state.root, state.file).run();
  name_the_file(result.diagnostics, state.file.string());
  sort_by_position(result.diagnostics);
  return result;
}

LoadResult load(const std::filesystem::path& path, const LoadOptions& options, const ComponentCatalog& catalog) {
  return resolve(read_pipeline(path, options), catalog);
}

}  // namespace hansa::config
