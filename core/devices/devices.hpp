// What a model computes on: "auto", "cpu" or "cuda:N" becomes a device of this machine, or a sentence. Any thread; values.
// Nothing here needs a LibTorch with CUDA: whether there is one shows when the program runs.
#pragma once
#include <string>
#include <string_view>

#include <c10/core/Device.h>

#include "base/error.hpp"

namespace hansa {

struct Devices {             // of this machine
  bool has_cuda = false;     // LibTorch was built with CUDA
  std::size_t cuda = 0;      // CUDA devices that it sees
  std::string text() const;  // "the CPU and cuda:0 to cuda:3"
};
Devices devices_here();

// Several processes of one node on one machine: which of them this is.
struct Neighbours {
  std::size_t index = 0, count = 1;
};

// "auto": the first CUDA device where there is one (with neighbours: each its own), else the CPU. A failure says what was asked
// for, what there is and what to do.
Result<at::Device> device_named(std::string_view asked, const Devices&, const Neighbours& = {});
at::Device require_device(std::string_view asked, const Neighbours& = {});  // here; throws Error

}  // namespace hansa
