// A released version as the files of a run directory. Any thread; looks at the directory each time.
#pragma once
#include <string_view>

#include "checkpoint/run_directory.hpp"
#include "fold/standing.hpp"

namespace hansa::coordinator {

// As nodes of the view hold it: the copy encoded for the downlink where there is one.
fold::Standing standing_of(const RunDirectory&, Epoch, std::string_view view = {});

}  // namespace hansa::coordinator
