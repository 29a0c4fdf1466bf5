// One example on its way from a file to tokens: pieces of text, of which some are to be learnt. Values.
#pragma once
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace hansa::data {

// A record that cannot be used: the reason alone; who reads the file knows where it stands.
class BadRecord : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct Piece {
  enum class Kind : std::uint8_t {
    Text,
    Begin,  // the tokenizer's begin of text; nothing where it has none
    End,    // its end of text, which must exist
  };
  Kind kind = Kind::Text;
  std::string text;
  bool counts = false;  // its tokens are labels
};

struct Draft {
  enum class Frame : std::uint8_t {
    Document,      // start token, pieces, end token; the end counts as the last piece does
    Conversation,  // the pieces say all
    Classified,    // one text, with what the checkpoint's post-processor puts around it
  };
  Frame frame = Frame::Document;
  std::vector<Piece> pieces;
  std::int32_t label = -1;  // its class
};

}  // namespace hansa::data
