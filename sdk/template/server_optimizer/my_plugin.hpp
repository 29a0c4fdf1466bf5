// Server optimiser "my_plugin": the aggregate with momentum. The velocity belongs to the host, which keeps it beside the model:
// the component itself is stateless. Replace the mathematics; keep to the rules of hansa/server_optimizer.hpp.
#pragma once
#include <hansa/server_optimizer.hpp>

namespace example {

struct Params {  // the initialisers are the defaults
  double learning_rate = 1;
  double momentum = 0.9;
};

class MyPlugin final : public hansa::Stateless<hansa::ServerOptimizer> {
 public:
  explicit MyPlugin(Params params) : params_(params) {}
  std::vector<hansa::TensorSpec> state(const hansa::TensorSpec& parameter) const override;
  void step(std::string_view channel, hansa::Index, at::Tensor& parameter, const at::Tensor& delta,
            std::span<at::Tensor> state) override;

 private:
  Params params_;
};

}  // namespace example
