// Kind "server_optimizer": how the aggregate moves the model (FedOpt, arXiv 2003.00295). Called on the fold thread.
#pragma once
#include <span>

#include <hansa/component.hpp>

namespace hansa {

class ServerOptimizer : public Component {
 public:
  using InterfaceType = ServerOptimizer;
  static constexpr std::string_view kKind = "server_optimizer/1";
  // Tensors the host keeps for each parameter beside the version file, zero at the start; fp32.
  virtual std::vector<TensorSpec> state(const TensorSpec& parameter) const = 0;
  virtual void begin_step(Round) {}
  // parameter and state are fp32 and changed in place; delta (already the mean, noised where asked) points the way to go.
  virtual void step(std::string_view channel, Index index, at::Tensor& parameter, const at::Tensor& delta,
                    std::span<at::Tensor> state) = 0;
};

}  // namespace hansa
