// A model or an adapter as llama.cpp reads it: one GGUF file. Called by `hansa export`; the training thread. Throws Error
// where the file would not compute what the model computes; what it computes otherwise only beyond some length, or only for
// some texts, is a remark.
#pragma once
#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include <hansa/model.hpp>

#include "gguf/writer.hpp"

namespace hansa::gguf {

// For people: what llama.cpp will do otherwise.
using Remarks = std::vector<std::string>;

// `tensors`: all of a checkpoint, as Model::merged() gives them; config.json and the tokenizer come from `base`. Vectors are
// written as f32 whatever `number` is.
Remarks export_model(const std::filesystem::path& file, const std::filesystem::path& base,
                     const std::vector<std::pair<std::string, at::Tensor>>& tensors, Number number);

// Pairs of low rank only, several of one module as one of the sum of their ranks; other kinds are refused.
Remarks export_adapter(const std::filesystem::path& file, const std::filesystem::path& base,
                       std::span<const Injection> injections, Number number);

}  // namespace hansa::gguf
