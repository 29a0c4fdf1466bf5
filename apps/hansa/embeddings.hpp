// Texts as vectors, as sentence encoders make them: the mean of the last layer's output over a text's tokens, with the
// tokenizer's own first and last, brought to length 1. Main thread. A text longer than the model allows loses its end.
#pragma once
#include <span>
#include <string>

#include <hansa/model.hpp>
#include <hansa/tokenizer.hpp>

namespace hansa {

at::Tensor text_embeddings(Model&, const Tokenizer&, std::span<const std::string> texts);  // fp32 [texts, width]

}  // namespace hansa
