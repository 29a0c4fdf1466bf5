// Which algorithms exist: every plugin file looked at, and the components of those that were loaded. main() builds one and
// hands it down; it outlives everything made from it. Filled on the main thread, then read from any.
#pragma once
#include <deque>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <hansa/catalog.hpp>

#include "plugin_host/build_note.hpp"
#include "plugin_host/library.hpp"
#include "plugin_host/revisions.hpp"
#include "plugin_host/trust.hpp"

namespace hansa {

struct SearchPath {
  std::filesystem::path path;  // a directory, or one file
  std::string from;            // "--plugin-path", "plugin_path", "HANSA_PLUGIN_PATH", "the install location"
};
// The command line's, the file's plugin_path, HANSA_PLUGIN_PATH (entries parted by ':'), and lib/hansa/plugins beside this
// program's folder where that exists. Earlier ones win. `from_file` is absolute.
std::vector<SearchPath> search_paths(std::span<const std::filesystem::path> from_command_line,
                                     std::span<const std::filesystem::path> from_file);

enum class Outcome : std::uint8_t { Loaded, Skipped, Refused };
std::string_view name_of(Outcome);

struct PluginFile {
  std::filesystem::path path;  // absolute
  SearchPath found_by;
  Outcome outcome = Outcome::Refused;
  std::string why;                      // "" when loaded; else the end of a sentence about the file
  const HansaPlugin* plugin = nullptr;  // null unless loaded
  BuildNote note;
  std::string sha256 = {};              // of the bytes that were loaded; "" unless loaded
  std::optional<Voucher> voucher = {};  // who vouched for them, where the policy asked
};

class StrategyRegistry final : public ComponentCatalog {
 public:
  // `adapters`: for further revisions of interfaces, which files may then offer beside those of `host`.
  explicit StrategyRegistry(BuildNote host = host_note(), std::vector<RevisionAdapter> adapters = {});
  StrategyRegistry(const StrategyRegistry&) = delete;
  StrategyRegistry& operator=(const StrategyRegistry&) = delete;

  // Whose plugins may run. Before the first scan; without it, everybody's.
  void set_trust(TrustPolicy policy) { trust_ = std::move(policy); }
  // Looks at every file of a path, by name. Never throws: what cannot be used is a row with its reason.
  void scan(const SearchPath&);
  void scan(std::span<const SearchPath> paths) {
    for (const auto& path : paths) scan(path);
  }

  const HansaComponent* find(std::string_view kind, std::string_view name) const override;
  std::vector<std::string> names(std::string_view kind) const override;
  std::string remark(std::string_view kind, std::string_view name) const override;

  std::vector<std::string> kinds() const;                                           // that have a component, sorted
  std::vector<const HansaComponent*> components(std::string_view kind = {}) const;  // sorted by kind and id; "": all
  const PluginFile& file_of(const HansaComponent&) const;
  std::string label_of(const HansaComponent&) const;  // "aggregator fedavg 0.1.0"
  // Null: the one is not served as the other.
  const RevisionAdapter* adapter(std::string_view from, std::string_view to) const;
  const std::deque<PluginFile>& files() const { return files_; }

 private:
  void look_at(const std::filesystem::path&, const SearchPath&);
  Result<OpenedPlugin> open(PluginFile&) const;
  std::optional<std::string> shadowed(const std::filesystem::path&) const;
  std::optional<std::string> clash(const HansaPlugin&) const;

  BuildNote host_;  // and what the adapters add
  std::vector<RevisionAdapter> adapters_;
  TrustPolicy trust_;
  std::deque<PluginFile> files_;
  std::map<std::pair<std::string, std::string>, const HansaComponent*, std::less<>> components_;
  std::map<const HansaComponent*, const PluginFile*> owners_;
};

}  // namespace hansa
