// Reads [plugins], which is needed before there are any plugins. Inside config/ only.
#pragma once
#include "config/value_reader.hpp"

namespace hansa::config {

// Keys that are files get absolute paths; whether they are keys is not looked at. Problems are reported.
PluginsSection read_plugins_section(const Reading&, const Node& root);

}  // namespace hansa::config
