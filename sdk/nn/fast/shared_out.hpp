// Work of items that are unlike in size, on cores that are unlike in speed: who is ready takes the next one. Items write to places
// of their own, so that it makes no difference to the result who did which.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/Parallel.h>

namespace hansa::nn::fast {

// body(item, thread), item in [0, count), on LibTorch's threads; returns when all are done.
template <class Body>
void shared_out(std::int64_t count, const Body& body) {
  std::atomic<std::int64_t> next = 0;
  at::parallel_for(0, std::min<std::int64_t>(count, at::get_num_threads()), 1, [&](std::int64_t, std::int64_t) {
    const at::AutoDispatchBelowADInplaceOrView below;
    for (auto i = next++; i < count; i = next++) body(i, at::get_thread_num());
  });
}

}  // namespace hansa::nn::fast
