// PEFT's directory of a LoRA adapter: adapter_config.json and adapter_model.safetensors. Pure functions over files and
// tensors. Throws Error naming key or tensor.
#pragma once
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include <hansa/model.hpp>

namespace hansa::lora {

struct Pair {
  at::Tensor A, B;   // fp32; the rank is A's first extent
  double alpha = 0;  // numerator of the scale
};
struct Saved {
  double dropout = 0;
  bool rank_stabilised = false;       // rsLoRA: scale alpha / sqrt(rank)
  std::map<std::string, Pair> pairs;  // by module name
};

// The shortest ends of names (after a dot) that match exactly the chosen modules among all.
std::vector<std::string> shortest_targets(std::span<const Module> all, const std::vector<std::string>& chosen);

void write_peft(const Saved&, std::span<const Module> all, const std::string& base,
                const std::filesystem::path& directory);
Saved read_peft(const std::filesystem::path& directory, std::span<const Module> all);
bool is_peft_lora(const std::filesystem::path& directory);

}  // namespace hansa::lora
