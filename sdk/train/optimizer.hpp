// The client's optimiser: LibTorch's fused AdamW (arXiv 1711.05101) and SGD over lists of fp32 tensors. Made for one round;
// its state starts at zero. Training thread only.
#pragma once
#include <functional>
#include <memory>
#include <vector>

#include <ATen/core/Tensor.h>

namespace hansa::train {

struct AdamSettings {
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, weight_decay = 0;
};
struct SgdSettings {
  double momentum = 0, weight_decay = 0;
};

class Optimizer {
 public:
  virtual ~Optimizer() = default;
  // Moves the parameters against the gradients that are in them; no gradient: the parameter stays.
  virtual void step(double learning_rate) = 0;
};
std::unique_ptr<Optimizer> adamw(std::vector<at::Tensor> parameters, const AdamSettings&);
std::unique_ptr<Optimizer> sgd(std::vector<at::Tensor> parameters, const SgdSettings&);

// One optimiser for the parameters of each rate, which multiplies the learning rate of all its steps; one rate a parameter.
std::unique_ptr<Optimizer> at_rates(const std::vector<at::Tensor>& parameters, const std::vector<double>& rates,
                                    const std::function<std::unique_ptr<Optimizer>(std::vector<at::Tensor>)>& make);

// Multiplies all gradients by `factor`, and by less where their joint L2 norm would then exceed `most` (0: no bound).
// Returns the norm before the bound.
double scale_gradients(const std::vector<at::Tensor>& parameters, double factor, double most);
void clear_gradients(const std::vector<at::Tensor>& parameters);

}  // namespace hansa::train
