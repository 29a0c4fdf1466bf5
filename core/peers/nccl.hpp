// NCCL, where this build has it. Inside this box only.
#pragma once
#include <c10/core/Device.h>
#include <c10/util/intrusive_ptr.h>

namespace c10d {
class Backend;
class Store;
}  // namespace c10d

namespace hansa::peers {

// Null: this build has none.
c10::intrusive_ptr<c10d::Backend> make_nccl(const c10::intrusive_ptr<c10d::Store>&, int rank, int size, at::Device);

}  // namespace hansa::peers
