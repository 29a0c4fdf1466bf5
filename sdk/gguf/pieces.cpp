#include "gguf/pieces.hpp"

#include <cstring>
#include <optional>

#include <fmt/format.h>

#include "base/file.hpp"

namespace hansa::gguf {
namespace {

// The wire format of protocol buffers: https://protobuf.dev/programming-guides/encoding
struct Field {
  std::uint64_t number = 0, value = 0;  // value of whole numbers and of four bytes
  std::string_view bytes;               // of texts and messages
};

class Fields {
 public:
  Fields(std::string_view bytes, const std::filesystem::path& path) : bytes_(bytes), path_(path) {}

  std::optional<Field> next() {
    if (bytes_.empty()) return std::nullopt;
    const auto tag = varint();
    Field field{.number = tag >> 3};
    switch (tag & 7) {
      case 0: field.value = varint(); break;
      case 1: take(8); break;
      case 2: field.bytes = take(varint()); break;
      case 5: {
        std::uint32_t value = 0;
        std::memcpy(&value, take(4).data(), 4);
        field.value = value;
        break;
      }
      default: broken();
    }
    return field;
  }

 private:
  [[noreturn]] void broken() const { throw Error(fmt::format("{} is no SentencePiece model", path_.string())); }
  std::string_view take(std::uint64_t count) {
    if (count > bytes_.size()) broken();
    const auto taken = bytes_.substr(0, count);
    bytes_.remove_prefix(count);
    return taken;
  }
  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      value |= static_cast<std::uint64_t>(byte & 0x7f) << shift;
      if ((byte & 0x80) == 0) return value;
    }
    broken();
  }
  std::string_view bytes_;
  const std::filesystem::path& path_;
};

}  // namespace

// Numbers of fields: sentencepiece_model.proto.
PieceFile read_pieces(const std::filesystem::path& path) {
  const auto text = read_file(path);
  PieceFile file;
  Fields model(text, path);
  while (const auto part = model.next()) {
    Fields fields(part->bytes, path);
    if (part->number == 1) {
      Piece piece;
      while (const auto field = fields.next()) {
        if (field->number == 1) piece.text = field->bytes;
        if (field->number == 2) {
          const auto bits = static_cast<std::uint32_t>(field->value);
          std::memcpy(&piece.score, &bits, sizeof bits);
        }
        if (field->number == 3) piece.type = static_cast<std::int32_t>(field->value);
      }
      file.pieces.push_back(std::move(piece));
    } else if (part->number == 2) {
      while (const auto field = fields.next())
        if (field->number == 3) file.byte_pairs = field->value == 2;
    } else if (part->number == 3) {
      while (const auto field = fields.next()) {
        if (field->number == 3) file.dummy_prefix = field->value != 0;
        if (field->number == 4) file.remove_extra_spaces = field->value != 0;
      }
    }
  }
  if (file.pieces.empty()) throw Error(fmt::format("{} is no SentencePiece model: it has no pieces", path.string()));
  return file;
}

}  // namespace hansa::gguf
