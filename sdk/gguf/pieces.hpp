// What stands in a tokenizer.model: pieces with their scores, how the model was made, what is done to spaces. SentencePiece's
// library tells pieces, but not the rest. The file is a protocol buffer; fields that are not asked for are skipped. Called by
// vocabulary_of(). Throws Error when the file is none of this kind.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace hansa::gguf {

struct Piece {
  std::string text;
  float score = 0;
  std::int32_t type = 1;  // normal 1, unknown 2, control 3, user-defined 4, unused 5, byte 6: GGUF has the same numbers
};

struct PieceFile {
  std::vector<Piece> pieces;  // by id
  bool byte_pairs = false;    // else Unigram, words or characters
  bool dummy_prefix = true, remove_extra_spaces = true;
};

PieceFile read_pieces(const std::filesystem::path& tokenizer_model);

}  // namespace hansa::gguf
