// --require-signed, --plugin-key and --plugin-digest, which every command that loads plugins takes. Main thread.
#pragma once
#include <string>
#include <vector>

#include "config/run_spec.hpp"
#include "plugin_host/trust.hpp"

namespace CLI {
class App;
}

namespace hansa {

void add_trust_options(CLI::App&, config::PluginsSection&);
// Throws Error naming the key or digest that cannot be used, or saying that nothing could be loaded or nothing refused.
TrustPolicy policy_of(const config::PluginsSection&);
// The same, for a child process, whatever folder it is started in.
std::vector<std::string> trust_arguments(const config::PluginsSection&);

}  // namespace hansa
