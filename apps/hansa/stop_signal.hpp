// Ctrl-C and SIGTERM as a flag that long work looks at. The one place with state for the whole process, because a signal
// handler can reach nothing else; a second signal ends the process at once.
#pragma once
#include <atomic>

namespace hansa {

const std::atomic<bool>& stop_on_signals();  // installs the handlers at the first call

}  // namespace hansa
