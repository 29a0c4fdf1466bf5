// The parameters as the round began with them, put into the adapter while it lives: the same model as reference or teacher,
// without a second one in memory. Training thread only; not inside a graph that is still to be gone back through.
#pragma once
#include <vector>

#include <ATen/core/grad_mode.h>
#include <ATen/core/Tensor.h>

namespace hansa::train {

inline std::vector<at::Tensor> copies_of(const std::vector<at::Tensor>& parameters) {
  std::vector<at::Tensor> copies;
  for (const auto& parameter : parameters) copies.push_back(parameter.detach().clone());
  return copies;
}

class AsAtStart {
 public:
  AsAtStart(const std::vector<at::Tensor>& parameters, const std::vector<at::Tensor>& start)
      : parameters_(parameters), now_(copies_of(parameters)) {
    put(start);
  }
  ~AsAtStart() { put(now_); }
  AsAtStart(const AsAtStart&) = delete;
  AsAtStart& operator=(const AsAtStart&) = delete;

 private:
  void put(const std::vector<at::Tensor>& values) {
    const at::NoGradGuard no_grad;
    for (std::size_t i = 0; i < parameters_.size(); ++i) parameters_[i].copy_(values[i]);
  }
  std::vector<at::Tensor> parameters_, now_;
};

}  // namespace hansa::train
