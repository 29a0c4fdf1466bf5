// The part of the resolver that finds the nodes: listed one by one, or one per file of a directory.
#include <algorithm>
#include <map>
#include <system_error>

#include <fmt/format.h>

#include "base/ids.hpp"
#include "config/resolver.hpp"

namespace hansa::config {
namespace fs = std::filesystem;

void Resolver::nodes() {
  const auto* list = root_.find("node");
  const bool from_directory = spec_.simulation && !spec_.simulation->nodes_from.empty();
  if (list && list->value.kind != Node::Kind::List) {
    r_.error(list->key_span, fmt::format("`node` is {}, but must be a list of nodes", name_of(list->value.kind)),
             "write [[node]] in double brackets, once per node");
  } else if (list && from_directory) {
    r_.error(list->key_span, "[[node]] and simulation.nodes_from both say which nodes there are", "keep one of them");
    listed_nodes(list->value);
  } else if (list) {
    listed_nodes(list->value);
  } else if (from_directory) {
    nodes_from_directory();
  }
  std::stable_sort(spec_.nodes.begin(), spec_.nodes.end(),
                   [](const auto& a, const auto& b) { return a.name < b.name; });
}

void Resolver::listed_nodes(const Node& list) {
  std::map<std::string, Position> names;
  std::map<NodeId, std::string> ids;
  for (std::size_t i = 0; i < list.items.size(); ++i) {
    const auto& item = list.items[i];
    const Place place{fmt::format("node.{}", i), item.span};
    if (item.kind != Node::Kind::Table) {
      r_.error(item.span, fmt::format("`node.{}` is {}, but must be a table", i, name_of(item.kind)), "write [[node]]");
      continue;
    }
    refuse_unknown(r_, item, names_of(sections_.node.params()), place);
    auto node = read_params(r_, sections_.node.params(), &item, place);
    const auto* written = item.find("name");
    const auto* name = node.find("name");
    if (!name) continue;
    const std::string text(text_of(name->raw()));
    const auto span = written->value.span;
    if (!is_node_name(text)) {
      r_.error(span, fmt::format("`{}` is no name for a node", text),
               "1 to 64 of A-Z a-z 0-9 . _ -, not starting with a dot or a dash: it becomes a file name");
      continue;
    }
    if (const auto [first, fresh] = names.emplace(text, r_.sources.position(span)); !fresh) {
      r_.error(span, fmt::format("two nodes are called `{}`", text),
               fmt::format("the other stands at {}:{}", first->second.file, first->second.line));
      continue;
    }
    if (const auto [other, fresh] = ids.emplace(node_id(text), text); !fresh) {
      r_.error(span, fmt::format("`{}` and `{}` have the same 63-bit identity", text, other->second),
               "rename one of them");
      continue;
    }
    if (!node.find("data")) continue;
    auto spec = sections_.node.read(node);
    spec.where = r_.sources.position(span);
    spec.listed = i;
    spec_.nodes.push_back(std::move(spec));
  }
}

void Resolver::nodes_from_directory() {
  const auto& directory = spec_.simulation->nodes_from;
  const auto where = span_of("simulation", "nodes_from");
  std::error_code code;
  std::map<std::string, std::string> names;
  std::map<NodeId, std::string> ids;
  fs::directory_iterator at(directory, code), end;
  if (code)
    return r_.error(where,
                    fmt::format("`simulation.nodes_from`: {} cannot be listed: {}", directory.string(), code.message()),
                    "it must be a directory");
  for (; at != end; at.increment(code)) {
    const auto file = at->path().filename().string();
    if (file.starts_with('.')) continue;
    const auto name = at->is_directory(code) ? file : at->path().stem().string();
    if (!is_node_name(name)) {
      r_.error(where, fmt::format("`{}` in {} is no name for a node", file, directory.string()),
               "1 to 64 of A-Z a-z 0-9 . _ -");
    } else if (const auto [first, fresh] = names.emplace(name, file); !fresh) {
      r_.error(where,
               fmt::format("`{}` and `{}` would both be the node `{}`", std::min(first->second, file),
                           std::max(first->second, file), name),
               "rename one of them");
    } else if (const auto [other, is_new] = ids.emplace(node_id(name), name); !is_new) {
      r_.error(where, fmt::format("`{}` and `{}` have the same 63-bit identity", name, other->second),
               "rename one of them");
    } else {
      spec_.nodes.push_back({.name = name, .data = at->path(), .where = r_.sources.position(where)});
    }
  }
  if (names.empty())
    r_.error(where, fmt::format("`simulation.nodes_from`: {} holds no silo", directory.string()),
             "put one file or folder per node into it");
}

}  // namespace hansa::config
