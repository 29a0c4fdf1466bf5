#include "coordinator/standing.hpp"

namespace hansa::coordinator {

fold::Standing standing_of(const RunDirectory& directory, Epoch epoch, std::string_view view) {
  fold::Standing standing;
  const auto served = directory.served(epoch, view);
  standing.packets = {std::filesystem::exists(served) ? served : directory.version(epoch, view)};
  Epoch from = 0;
  if (const auto snapshot = directory.newest_snapshot(); snapshot && *snapshot <= epoch) {
    from = *snapshot;
    standing.log.push_back({from, true, directory.snapshot(from)});
  }
  for (const auto entry : directory.logs()) {
    if (entry > from && entry <= epoch) standing.log.push_back({entry, false, directory.log(entry)});
  }
  return standing;
}

}  // namespace hansa::coordinator
