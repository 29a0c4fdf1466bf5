// Just enough Unicode to put a caret under the right character. Total: broken UTF-8 becomes U+FFFD, byte by byte. Any thread.
#pragma once
#include <string>
#include <string_view>

namespace hansa::config {

// Takes one character off the front. Never stops: a bad byte gives U+FFFD.
char32_t take_character(std::string_view& text);
int columns_of(char32_t);  // 0 for combining marks, 2 for wide characters, else 1
void append_utf8(std::string& to, char32_t);
std::string printable(std::string_view text);  // one line: control characters as \x1b, broken bytes as U+FFFD
std::size_t count_characters(std::string_view text);

}  // namespace hansa::config
