// Values and whole pipelines as text, the way a pipeline file would have them. Pure; any thread.
#pragma once
#include <string>
#include <string_view>

#include <hansa/value.hpp>

#include "config/run_spec.hpp"

namespace hansa::config {

std::string toml_value(const HansaValue&);  // "0.5", "\"text\"", "[1, 2]", "{ use = \"krum\", f = 1 }"

// The RunSpec as a tree of sections in the file's own shape: what is printed as TOML, and cut down to the canonical JSON.
Value as_sections(const RunSpec&);

}  // namespace hansa::config
