// Server optimiser "sgd": parameter += learning_rate · (velocity or delta). Plain averaging with the defaults. Own loops: the
// same bits whatever the number of threads. State, kept by the host: one fp32 tensor per parameter when momentum is not 0.
#pragma once
#include <hansa/server_optimizer.hpp>

namespace hansa::sgd {

struct Params {
  double learning_rate = 1;
  double momentum = 0;
  bool nesterov = false;
};
std::uint64_t traits(const Params&);

class Sgd final : public Stateless<ServerOptimizer> {
 public:
  explicit Sgd(Params params) : params_(params) {}
  std::vector<TensorSpec> state(const TensorSpec& parameter) const override;
  void step(std::string_view channel, Index index, at::Tensor& parameter, const at::Tensor& delta,
            std::span<at::Tensor> state) override;

 private:
  Params params_;
};

}  // namespace hansa::sgd
