// How this process's heap treats large blocks. Called once, on the main thread, before LibTorch allocates anything.
#pragma once

namespace hansa {

enum class Keeps { Some, Everything };
// By default glibc maps each block above 128 KiB anew and gives it back when it is freed: for chunks and tensors that come and
// go many times in a round, most of the round is then spent in page faults. This keeps freed blocks for the next ones: up to
// 64 MiB of them, or all (a node, whose next round needs what this one needed). Huge pages are asked for where the system
// leaves that to programs.
void keep_large_blocks(Keeps);

}  // namespace hansa
