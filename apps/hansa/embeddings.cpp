#include "embeddings.hpp"

#include <algorithm>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/TensorOperators.h>
#include <fmt/format.h>

#include "base/error.hpp"

namespace hansa {

at::Tensor text_embeddings(Model& model, const Tokenizer& tokenizer, std::span<const std::string> texts) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> rows;
  for (const auto& text : texts) {  // one by one: as many tokens as the text has, and no padding
    const auto ids = tokenizer.encode_with_special(text, model.max_length());
    if (ids.empty()) throw Error(fmt::format("the text \"{}\" has no tokens", text));
    const auto mean = model.hidden({.tokens = at::tensor(ids, at::kLong).unsqueeze(0)}).squeeze(0).mean(0);
    rows.push_back(mean / at::linalg_vector_norm(mean).clamp_min(1e-12));
  }
  return at::stack(rows).to(at::kCPU).contiguous();
}

}  // namespace hansa
