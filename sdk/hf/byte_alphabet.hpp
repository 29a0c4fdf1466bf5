// Byte-level BPE writes each byte as a printable character: itself where it is one (Latin-1), else U+0100 and on. This is
// the mapping of GPT-2's tokenizer and of all that followed it. Pure functions: any thread.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace hansa::hf {

void append_as_characters(std::string& to, std::string_view bytes);
std::optional<char> byte_of_character(std::uint32_t code_point);

}  // namespace hansa::hf
