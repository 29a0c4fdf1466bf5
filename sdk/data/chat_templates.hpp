// Conversations as the text that a model was trained to read. A format is a row of a table (chat_templates.cpp): what stands
// before and after the words of each role. Our own Jinja text of each, with its source, lies in tests/golden/templates; the
// tests hold both against each other. Pure functions: any thread. What a format cannot express throws BadRecord.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <hansa/tokenizer.hpp>

#include "data/draft.hpp"

namespace hansa::data {

enum class Role : std::uint8_t { System, User, Assistant };
struct Message {
  Role role = Role::User;
  std::string content;
};

enum class Ending : std::uint8_t {
  Closed,       // a whole conversation: training
  OpenForReply  // ends where the assistant is to go on: prompts
};

class ChatFormat;  // a row of the table; all live as long as the program
std::vector<std::string> chat_format_names();
const ChatFormat& chat_format(std::string_view name);  // throws Error with the names that there are

// What counts: the assistant's words and what closes them.
std::vector<Piece> render(const ChatFormat&, std::span<const Message>, Ending = Ending::Closed);

// The format of a checkpoint's own template, known by its digest; throws Error with the names when it has none or another.
const ChatFormat& chat_format_of(const Tokenizer&);
// SHA-256, in hexadecimal, of a template without its comments and without the white space that Jinja drops beside "-"; within
// a tag, but for quoted words, each run of white space counts as one space.
std::string chat_template_digest(std::string_view jinja);
std::optional<std::string> chat_format_by_digest(std::string_view digest);

std::string_view trimmed_like_python(std::string_view utf8);  // str.strip(): all of Unicode's white space

}  // namespace hansa::data
