// The processes that train one silo together, each on its part of every batch; all run the same calls in the same order. Given
// to a trainer by its context; node side, training thread. The host owns it.
#pragma once
#include <cstddef>
#include <string_view>

#include <ATen/core/Tensor.h>

namespace hansa {

class Peers {
 public:
  Peers() = default;
  Peers(const Peers&) = delete;
  Peers& operator=(const Peers&) = delete;
  virtual ~Peers() = default;
  virtual std::size_t rank() const = 0;  // from 0: that one talks with the coordinator
  virtual std::size_t size() const = 0;
  // The tensor becomes the sum over all processes, in each the same bits. Of the same shape and type in all of them,
  // contiguous, without gradient. Throws when a process is gone: the host then ends this one.
  virtual void sum(at::Tensor&) = 0;
  // Each says whether it can go on (empty) or why not. Where one cannot, all of them throw a std::exception with its reason:
  // so the work is given up by all at one place, and the next can begin.
  virtual void agree(std::string_view failure) = 0;
};

}  // namespace hansa
