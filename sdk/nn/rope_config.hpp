// Rotary positions as config.json writes them: rope_theta and rope_scaling, or rope_parameters (newer). Throws Error naming
// the key for scaling types that we lack.
#pragma once
#include "nn/rope.hpp"

namespace hansa::hf {
class JsonConfig;
}

namespace hansa::nn {

RopeSettings read_rope(hf::JsonConfig& config, std::int64_t head_dim, double default_theta);

}  // namespace hansa::nn
