#include "config/component_params.hpp"

#include <filesystem>
#include <utility>

#include <fmt/format.h>

#include "config/value_reader.hpp"

namespace hansa::config {

ComponentParams read_component(const ComponentCatalog& catalog, std::string_view kind, const std::string& name,
                               const std::vector<std::string>& set) {
  ComponentParams read;
  Sources sources;
  std::vector<Setting> unsaid;
  const Reading reading{catalog, sources, read.diagnostics, unsaid};
  Node table;
  const auto here = std::filesystem::current_path();
  for (const auto& one : set) {
    const int source = sources.add({fmt::format("--set {}", one), "", here});
    const Span where{source};
    const auto sign = one.find('=');
    if (sign == std::string::npos || sign == 0) {
      reading.error(where, fmt::format("`{}` is no setting", one), "write --set parameter=value");
      continue;
    }
    Node value;
    if (auto parsed = parse_toml_value(one.substr(sign + 1), where)) {
      value = std::move(*parsed);
    } else {
      value.kind = Node::Kind::Text;
      value.text = one.substr(sign + 1);
      value.span = where;
    }
    auto path = one.substr(0, sign);
    for (auto dot = path.rfind('.'); dot != std::string::npos; dot = path.rfind('.')) {
      Node outer;
      outer.span = where;
      outer.entries.push_back({path.substr(dot + 1), where, std::move(value)});
      value = std::move(outer);
      path.resize(dot);
    }
    Node over;
    over.entries.push_back({path, where, std::move(value)});
    merge(table, std::move(over));
  }
  const auto* component = catalog.find(kind, name);
  const Place place{name, {}};
  refuse_unknown(reading, table, names_of(params_of(*component)), place);
  read.params = read_params(reading, params_of(*component), &table, place);
  if (!has_errors(read.diagnostics)) check_component(reading, {name, component, {}}, read.params, &table, place);
  return read;
}

}  // namespace hansa::config
