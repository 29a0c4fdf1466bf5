// Which of llama.cpp's pre-tokenizers cuts texts as a tokenizer.json does. Called by vocabulary_of().
#pragma once
#include <string>

#include <nlohmann/json_fwd.hpp>

namespace hansa::gguf {

// Throws Error with what the file has and what is known.
std::string pre_tokenizer_of(const nlohmann::json& tokenizer);

}  // namespace hansa::gguf
