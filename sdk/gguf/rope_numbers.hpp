// Rotary positions as GGUF has them: numbers, and tensors of factors by which frequencies are divided. Called by describe().
// Throws Error naming the config.json key where llama.cpp would turn otherwise.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include <nn/rope.hpp>

#include "gguf/writer.hpp"

namespace hansa::hf {
class JsonConfig;
}

namespace hansa::gguf {

enum class RopeFactors : std::uint8_t { None, OneTable, ShortAndLong };  // which tables the architecture reads

struct RopeNumbers {
  Metadata numbers;  // keys without the architecture's name
  std::vector<std::pair<std::string, std::vector<float>>> extra;
  std::vector<std::string> remarks;
};

RopeNumbers rope_numbers(hf::JsonConfig&, const nn::RopeSettings&, RopeFactors);

}  // namespace hansa::gguf
