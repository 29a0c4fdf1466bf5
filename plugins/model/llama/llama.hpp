// The model class of plugin `llama`; everything but config.json is the shared CausalModel's.
#pragma once
#include <nn/causal_model.hpp>

namespace hansa::llama {

class Llama final : public nn::CausalModel {
 public:
  Llama();
};

}  // namespace hansa::llama
