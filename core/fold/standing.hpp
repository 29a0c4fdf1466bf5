// A version as files: what is needed to compute with it, on a node or in a run directory. Values.
#pragma once
#include <filesystem>
#include <vector>

#include <hansa/types.hpp>

namespace hansa::fold {

struct LogRef {
  Epoch epoch = 0;
  bool anew = false;  // says everything up to its epoch by itself: forget what came before
  std::filesystem::path file;
};
struct Standing {
  std::vector<std::filesystem::path> packets;  // oldest first: the newest that holds a tensor has it
  std::vector<LogRef> log;                     // oldest first; the first is `anew`, or nothing was ever dropped
};

}  // namespace hansa::fold
