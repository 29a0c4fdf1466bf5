// The JSON Schema (draft 7) of a pipeline file, made from the host's sections and every component that is known: for editors,
// and for checks without Hansa. It says less than `hansa check`: files, cross-field checks and rules are not in it. Pure.
#pragma once
#include <string>

#include <hansa/catalog.hpp>

namespace hansa::config {

std::string json_schema(const ComponentCatalog&);

}  // namespace hansa::config
