// The model class of plugin `gpt2`; everything but config.json is the shared CausalModel's.
#pragma once
#include <nn/causal_model.hpp>

namespace hansa::gpt2 {

class Gpt2 final : public nn::CausalModel {
 public:
  Gpt2();
};

}  // namespace hansa::gpt2
