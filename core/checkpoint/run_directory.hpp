// Where everything of a run lies, who may use it, and what stays. One coordinator process owns a run directory (flock); it is
// the only writer. Fails with Error: in use (names the process), not a run directory, exists already.
//
//   config.toml        resolved pipeline            journal, ledger   what happened, what was spent (0600)
//   manifest.json      newest checkpoint            versions/         epoch-000012.hansa + .state
//   events.jsonl, metrics.csv                       spool/            uploads of the open round
//   adapter/           exported adapter             summary.json, report files
//   secrets/           keys of the run (0600): never copied into exports
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <hansa/types.hpp>

#include "base/file.hpp"

namespace hansa {

class RunDirectory {
 public:
  enum class Open : std::uint8_t {
    Create,  // must not hold a run yet (an empty or missing directory is fine)
    Resume,  // must hold one
  };
  RunDirectory(std::filesystem::path directory, Open how);          // takes the lock until destroyed
  static bool holds_a_run(const std::filesystem::path& directory);  // needs no lock

  const std::filesystem::path& path() const { return directory_; }
  std::filesystem::path config() const { return directory_ / "config.toml"; }
  std::filesystem::path manifest() const { return directory_ / "manifest.json"; }
  std::filesystem::path journal() const { return directory_ / "journal"; }
  std::filesystem::path ledger() const { return directory_ / "ledger"; }
  std::filesystem::path events() const { return directory_ / "events.jsonl"; }
  std::filesystem::path metrics() const { return directory_ / "metrics.csv"; }
  std::filesystem::path spool() const { return directory_ / "spool"; }
  std::filesystem::path adapter() const { return directory_ / "adapter"; }
  std::filesystem::path summary() const { return directory_ / "summary.json"; }
  // Of one view of the run; "" is the pipeline's own.
  std::filesystem::path version(Epoch epoch, std::string_view view = {}) const;  // versions/epoch-000012[.VIEW].hansa
  std::filesystem::path served(Epoch epoch, std::string_view view = {}) const;   // ….served: encoded for the downlink
  std::filesystem::path part(Epoch epoch, std::string_view view = {}) const;     // ….part: what moved
  std::filesystem::path log(Epoch epoch) const;       // versions/epoch-000012.log: entries of the Log channels
  std::filesystem::path snapshot(Epoch epoch) const;  // versions/epoch-000012.snapshot: all entries until then as one
  std::filesystem::path state(Epoch epoch) const;     // versions/epoch-000012.state: optimiser, privacy, selector, …
  std::filesystem::path components(Epoch epoch) const;  // versions/epoch-000012.components: states of plugins
  std::vector<Epoch> versions() const;                  // complete ones present, ascending

  // 32 random bytes of this run under a name ("tokens", "sampling"): made at first use, the same after a restart.
  std::string secret(std::string_view name) const;
  std::vector<Epoch> logs() const;  // epochs with a log file, ascending
  std::optional<Epoch> newest_snapshot() const;
  void drop_logs(Epoch up_to) const;  // logs up to here, and snapshots before it
  // Removes versions and what belongs to them older than the newest `count` up to `newest`, those after `newest` (a fold that was never
  // released), and leftovers of interrupted writes. `newest` and its `count - 1` predecessors stay, and all logs up to it.
  void keep_versions(Epoch newest, std::int64_t count) const;

 private:
  void lock();
  std::filesystem::path directory_;
  FileDescriptor lock_;
};

}  // namespace hansa
