// Turns what an author wrote into what a parameter table asks for, and tells what does not fit. Inside config/ only.
#pragma once
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <hansa/catalog.hpp>
#include <hansa/value.hpp>

#include "config/document.hpp"
#include "config/load.hpp"

namespace hansa::config {

using Params = std::span<const HansaParam* const>;

enum class Files : std::uint8_t { Look, Ignore };  // Ignore: what came over the wire names no files of this machine

struct Reading {  // borrowed; lives for one resolve()
  const ComponentCatalog& catalog;
  const Sources& sources;
  std::vector<Diagnostic>& diagnostics;
  std::vector<Setting>& settings;
  Files files = Files::Look;

  void error(const Span& where, std::string what, std::string help = {}) const {
    diagnostics.push_back(sources.diagnose(Severity::Error, where, std::move(what), std::move(help)));
  }
  void warning(const Span& where, std::string what, std::string help = {}) const {
    diagnostics.push_back(sources.diagnose(Severity::Warning, where, std::move(what), std::move(help)));
  }
  void setting(std::string key, std::string value, const Span& where) const {
    settings.push_back({std::move(key), std::move(value), sources.position(where), sources.width(where)});
  }
};

struct Place {         // of a table that is being read
  std::string prefix;  // "aggregator": for messages and settings
  Span header;         // what to point at when something is missing from it
};

// Every parameter with a value or a default, as a table. What does not fit is reported and gets its default. Nodes are the
// table's own (null: the section was left out). Keys that no parameter owns are ignored: see refuse_unknown.
Value read_params(const Reading&, Params, const Node* table, const Place&);
void refuse_unknown(const Reading&, const Node& table, const std::vector<std::string>& known, const Place&);
std::vector<std::string> names_of(Params);

// `use` of a component section looked up in the catalog; reports when it cannot be found.
struct Chosen {
  std::string use;
  const HansaComponent* component = nullptr;
  Span where;
};
std::optional<Chosen> choose(const Reading&, std::string_view kind, const Node& table, const Place&);
Params params_of(const HansaComponent&);
// The component's own check of its resolved parameters (problems are reported where the parameter stands), and the traits
// that follow from them. Nothing when it refuses; `table` is what the author wrote, null: nothing.
std::optional<HansaTraits> check_component(const Reading&, const Chosen&, const Value& params, const Node* table,
                                           const Place&);
std::string choose_one_of(const Reading&, std::string_view kind);  // "choose one of `a`, `b`", or that there is none

}  // namespace hansa::config
