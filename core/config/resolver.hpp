// From the merged tree to a RunSpec: sections, components, nodes. Inside config/ only; one resolver per resolve().
#pragma once
#include <string>
#include <vector>

#include "config/sections.hpp"
#include "config/value_reader.hpp"

namespace hansa::config {

class Resolver {
 public:
  // `files` also says whose eyes these are: Ignore is a node reading what a coordinator sent, which names neither paths
  // nor nodes, and may use coordinator-side plugins that this machine lacks.
  Resolver(const Reading& reading, const Node& root, std::filesystem::path file);
  RunSpec run();

 private:
  const Node* section(const std::string& name, Place& place);
  template <class S>
  S host_section(const Schema<S>& schema, const std::string& name, const Node* table, const Place& place);
  template <class S>
  S own_section(const Schema<S>& schema, const std::string& name, std::vector<std::string> also_known = {});

  void refuse_unknown_sections();
  void plugin_path();
  void components();
  ComponentSpec component(std::string_view kind, const std::string& name, const Node& table, const Place& place,
                          const std::vector<std::string>& host_keys);
  void finish_component(ComponentSpec& spec, const Node* table, const Place& place);
  ComponentSpec required_component(std::string_view kind, const std::string& name,
                                   const std::vector<std::string>& host_keys = {});
  ComponentSpec optional_component(std::string_view kind, const std::string& name, std::uint64_t trait);
  ComponentSpec default_component(std::string_view kind, const std::string& name, std::uint64_t trait);
  std::vector<ComponentSpec> codecs(const std::string& name);
  void evaluation();
  void nodes();
  void listed_nodes(const Node& list);
  void nodes_from_directory();
  void check_model();
  void check_across();
  Span span_of(const std::string& section_name, const std::string& key) const;
  void restate(const std::string& key, std::string value);  // in the settings: a value worked out after it was read

  const Reading& r_;
  const Node& root_;
  const Sections sections_ = make_sections();
  RunSpec spec_;
};

}  // namespace hansa::config
