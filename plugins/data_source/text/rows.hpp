// Tokenised documents and how they become rows. A document is a sequence: start token, tokens, end token; each token but
// the first is the label of the one before. Values; one thread.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include <hansa/model.hpp>

namespace hansa::text {

struct Document {
  std::size_t first = 0, count = 0;  // in Tokens::ids
  std::int64_t bytes = 0;            // UTF-8
  std::size_t counted = 0;           // labels that stand for text: all but the end token
};
struct Tokens {
  std::vector<std::int32_t> ids;
  std::vector<Document> documents;
};

struct Piece {  // a window of a document: `count` inputs, and as many labels one further
  std::uint32_t document = 0;
  std::uint32_t first = 0, count = 0;
};
// Windows of at most `length` inputs, in order. The last label of one is the first input of the next.
std::vector<Piece> cut_into_pieces(const Tokens&, std::int64_t length);

// Bytes of the text that labels [first, first + count) of a document stand for. A document's bytes are spread evenly over
// its tokens, so that all its pieces together give exactly its UTF-8 length; the end token stands for none.
std::int64_t bytes_of(const Document&, std::size_t first, std::size_t count);

// Puts pieces into the first row with room. Full when a piece fits nowhere.
class RowBuilder {
 public:
  RowBuilder(const Tokens&, std::int64_t rows, std::int64_t length, std::int64_t most_per_row);
  bool add(const Piece&);  // false: no room, nothing changed
  bool empty() const { return batch_.counted == 0; }
  Batch take();  // rows that stayed empty are left out

 private:
  const Tokens& tokens_;
  std::int64_t length_, most_per_row_;
  std::vector<std::int64_t> used_, pieces_;
  Batch batch_;
};

}  // namespace hansa::text
