#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

#include "peers/nccl.hpp"

namespace hansa::peers {

c10::intrusive_ptr<c10d::Backend> make_nccl(const c10::intrusive_ptr<c10d::Store>& store, int rank, int size,
                                            at::Device device) {
  const c10::cuda::CUDAGuard guard(device);  // a process has one device, and NCCL's threads begin with it
  return c10::make_intrusive<c10d::ProcessGroupNCCL>(store, rank, size);
}

}  // namespace hansa::peers
