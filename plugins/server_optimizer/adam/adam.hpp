// Server optimiser "adam": FedAdam and FedYogi (arXiv 2003.00295, algorithm 2). Own loops: the same bits whatever the number
// of threads. State, kept by the host: first and second moment, fp32, of the parameter's shape.
#pragma once
#include <hansa/server_optimizer.hpp>

namespace hansa::adam {

enum class SecondMoment { Adam, Yogi };
struct Params {
  double learning_rate = 0.01;
  double beta1 = 0.9;
  double beta2 = 0.99;
  double tau = 1e-3;
  SecondMoment second_moment = SecondMoment::Adam;
};

class Adam final : public Stateless<ServerOptimizer> {
 public:
  explicit Adam(Params params) : params_(params) {}
  std::vector<TensorSpec> state(const TensorSpec& parameter) const override;
  void step(std::string_view channel, Index index, at::Tensor& parameter, const at::Tensor& delta,
            std::span<at::Tensor> state) override;

 private:
  Params params_;
};

}  // namespace hansa::adam
