// A tokenizer as GGUF has it: the keys "tokenizer.*". Two kinds: "gpt2" (byte-level byte pairs, with the name of a
// pre-tokenizer that llama.cpp has) and "llama" (SentencePiece's byte pairs with byte fallback). Called by export_model().
// Throws Error naming the part of the tokenizer where llama.cpp would give other ids.
#pragma once
#include <cstdint>
#include <filesystem>

#include "gguf/writer.hpp"

namespace hansa::gguf {

// `rows`: of the embedding; ids without a token get a name that no text has.
Metadata vocabulary_of(const std::filesystem::path& checkpoint, std::int64_t rows);

}  // namespace hansa::gguf
