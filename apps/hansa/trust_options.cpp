#include "trust_options.hpp"

#include <filesystem>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "base/error.hpp"

namespace hansa {

void add_trust_options(CLI::App& command, config::PluginsSection& trust) {
  command.add_flag("--require-signed", trust.require_signed,
                   "Load only plugins signed by a --plugin-key or listed by a --plugin-digest");
  command
      .add_option("--plugin-key", trust.keys,
                  "A public key (file, or ed25519:…) whose signature makes a plugin loadable (repeatable)")
      ->allow_extra_args(false);
  command
      .add_option("--plugin-digest", trust.digests,
                  "sha256:… of a plugin file that may be loaded without a signature (repeatable)")
      ->allow_extra_args(false);
}

TrustPolicy policy_of(const config::PluginsSection& trust) {
  if (trust.says_anything() && !trust.require_signed)
    throw Error("--plugin-key and --plugin-digest refuse nothing by themselves; add --require-signed");
  TrustPolicy policy{trust.require_signed, {}, {}};
  for (const auto& key : trust.keys)
    if (const auto why = policy.add_key(key)) throw Error(fmt::format("--plugin-key {}: it {}", key, *why));
  for (const auto& digest : trust.digests)
    if (const auto why = policy.add_digest(digest)) throw Error(fmt::format("--plugin-digest {}: it {}", digest, *why));
  if (policy.require_signed && policy.keys.empty() && policy.digests.empty())
    throw Error(
        "--require-signed refuses every plugin where nobody is trusted; add --plugin-key PUB or --plugin-digest "
        "sha256:…");
  return policy;
}

std::vector<std::string> trust_arguments(const config::PluginsSection& trust) {
  if (!trust.require_signed) return {};
  std::vector<std::string> arguments{"--require-signed"};
  for (const auto& key : trust.keys)
    arguments.insert(arguments.end(),
                     {"--plugin-key", key.starts_with(kInlineKey) ? key : std::filesystem::absolute(key).string()});
  for (const auto& digest : trust.digests) arguments.insert(arguments.end(), {"--plugin-digest", digest});
  return arguments;
}

}  // namespace hansa
