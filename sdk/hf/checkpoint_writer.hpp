// A full checkpoint that Transformers reads: config and tokenizer of a base, other weights. Throws Error.
#pragma once
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

namespace hansa::hf {

// Names and layouts are the checkpoint's own; weights are fp32, and config.json says so. `directory` is made.
void write_checkpoint(const std::filesystem::path& directory, const std::filesystem::path& base,
                      const std::vector<std::pair<std::string, at::Tensor>>& tensors);

}  // namespace hansa::hf
