#include "hf/byte_alphabet.hpp"

#include <array>

#include "hf/code_points.hpp"

namespace hansa::hf {
namespace {

constexpr bool stands_for_itself(unsigned byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

constexpr std::array<std::uint16_t, 256> characters() {
  std::array<std::uint16_t, 256> of_byte{};
  std::uint16_t next = 0x100;
  for (unsigned byte = 0; byte < 256; ++byte) {
    of_byte[byte] = stands_for_itself(byte) ? static_cast<std::uint16_t>(byte) : next++;
  }
  return of_byte;
}

constexpr auto kCharacters = characters();

constexpr std::array<std::int16_t, 0x200> bytes() {
  std::array<std::int16_t, 0x200> of_character{};
  for (auto& byte : of_character) byte = -1;
  for (unsigned byte = 0; byte < 256; ++byte) of_character[kCharacters[byte]] = static_cast<std::int16_t>(byte);
  return of_character;
}

constexpr auto kBytes = bytes();

}  // namespace

void append_as_characters(std::string& to, std::string_view text) {
  for (const char byte : text) append_utf8(to, kCharacters[static_cast<unsigned char>(byte)]);
}

std::optional<char> byte_of_character(std::uint32_t code_point) {
  if (code_point >= kBytes.size() || kBytes[code_point] < 0) return std::nullopt;
  return static_cast<char>(kBytes[code_point]);
}

}  // namespace hansa::hf
