#include "data/chat_templates.hpp"

#include <algorithm>
#include <array>
#include <iterator>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <hansa/tokenizer_origin.hpp>
#include <hf/code_points.hpp>

#include "base/digest.hpp"
#include "base/error.hpp"

namespace hansa::data {

namespace {

// In the table: the tokenizer's begin and end of text.
#define BOS "\1"
#define EOS "\2"

enum class SystemAt : std::uint8_t {
  Turn,       // a turn of its own
  FirstUser,  // within the first user's
  Nowhere,
};
enum class Trim : std::uint8_t {
  Nothing,
  Answers,
  Content,
  WithSystem
};                                                     // the last: after the system's words were put before it
enum class Order : std::uint8_t { Any, Alternating };  // user, assistant, user, …

struct Around {
  std::string_view before, after;
};

}  // namespace

class ChatFormat {
 public:
  std::string_view name;
  std::string_view begin;
  SystemAt system_at = SystemAt::Turn;
  Around system;
  std::optional<std::string_view> without_system;  // the system's words where a conversation names none
  Around user;
  std::string_view between;                      // before each user but the first
  std::string_view assistant, lead, close, gap;  // before; then what counts: lead, content, close; then gap
  std::string_view open_for_reply;               // at the end of a prompt
  std::string_view end;                          // at the end of a whole conversation
  Trim trim = Trim::Nothing;
  Order order = Order::Any;
};

namespace {

constexpr std::string_view kQwenSystem = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.";
constexpr std::string_view kAlpacaSystem =
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.";
#define LLAMA3(role) "<|start_header_id|>" role "<|end_header_id|>\n\n"

const std::array kFormats{
    ChatFormat{.name = "chatml",
               .system = {"<|im_start|>system\n", "<|im_end|>\n"},
               .user = {"<|im_start|>user\n", "<|im_end|>\n"},
               .assistant = "<|im_start|>assistant\n",
               .close = "<|im_end|>",
               .gap = "\n",
               .open_for_reply = "<|im_start|>assistant\n"},
    ChatFormat{.name = "llama2",
               .system_at = SystemAt::FirstUser,
               .system = {"<<SYS>>\n", "\n<</SYS>>\n\n"},
               .user = {BOS "[INST] ", " [/INST]"},
               .lead = " ",
               .close = " " EOS,
               .trim = Trim::WithSystem,
               .order = Order::Alternating},
    ChatFormat{.name = "llama3",
               .begin = BOS,
               .system = {LLAMA3("system"), "<|eot_id|>"},
               .user = {LLAMA3("user"), "<|eot_id|>"},
               .assistant = LLAMA3("assistant"),
               .close = "<|eot_id|>",
               .open_for_reply = LLAMA3("assistant"),
               .trim = Trim::Content},
    ChatFormat{
        .name = "llama3.1",
        .begin = BOS,
        .system = {LLAMA3("system") "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n", "<|eot_id|>"},
        .without_system = "",
        .user = {LLAMA3("user"), "<|eot_id|>"},
        .assistant = LLAMA3("assistant"),
        .close = "<|eot_id|>",
        .open_for_reply = LLAMA3("assistant"),
        .trim = Trim::Content},
    ChatFormat{.name = "mistral",
               .begin = BOS,
               .system_at = SystemAt::FirstUser,
               .system = {"", "\n\n"},
               .user = {" [INST] ", " [/INST]"},
               .lead = " ",
               .close = EOS,
               .order = Order::Alternating},
    ChatFormat{.name = "mistral_v3",
               .begin = BOS,
               .system_at = SystemAt::FirstUser,
               .system = {"", "\n\n"},
               .user = {"[INST] ", "[/INST]"},
               .lead = " ",
               .close = EOS,
               .trim = Trim::Answers,
               .order = Order::Alternating},
    ChatFormat{.name = "gemma",
               .begin = BOS,
               .system_at = SystemAt::Nowhere,
               .user = {"<start_of_turn>user\n", "<end_of_turn>\n"},
               .assistant = "<start_of_turn>model\n",
               .close = "<end_of_turn>",
               .gap = "\n",
               .open_for_reply = "<start_of_turn>model\n",
               .trim = Trim::Content,
               .order = Order::Alternating},
    ChatFormat{.name = "gemma3",
               .begin = BOS,
               .system_at = SystemAt::FirstUser,
               .system = {"", "\n\n"},
               .user = {"<start_of_turn>user\n", "<end_of_turn>\n"},
               .assistant = "<start_of_turn>model\n",
               .close = "<end_of_turn>",
               .gap = "\n",
               .open_for_reply = "<start_of_turn>model\n",
               .trim = Trim::Content,
               .order = Order::Alternating},
    ChatFormat{.name = "zephyr",
               .system = {"<|system|>\n", EOS "\n"},
               .user = {"<|user|>\n", EOS "\n"},
               .assistant = "<|assistant|>\n",
               .close = EOS,
               .gap = "\n",
               .open_for_reply = "<|assistant|>\n"},
    ChatFormat{.name = "phi3",
               .system = {"<|system|>\n", "<|end|>\n"},
               .user = {"<|user|>\n", "<|end|>\n"},
               .assistant = "<|assistant|>\n",
               .close = "<|end|>",
               .gap = "\n",
               .open_for_reply = "<|assistant|>\n",
               .end = EOS},
    ChatFormat{.name = "qwen2.5",
               .system = {"<|im_start|>system\n", "<|im_end|>\n"},
               .without_system = kQwenSystem,
               .user = {"<|im_start|>user\n", "<|im_end|>\n"},
               .assistant = "<|im_start|>assistant\n",
               .close = "<|im_end|>",
               .gap = "\n",
               .open_for_reply = "<|im_start|>assistant\n"},
    ChatFormat{.name = "alpaca",
               .system = {"", "\n\n"},
               .without_system = kAlpacaSystem,
               .user = {"### Instruction:\n", "\n\n"},
               .between = "\n\n",
               .assistant = "### Response:\n",
               .close = EOS,
               .open_for_reply = "### Response:\n",
               .order = Order::Alternating},
};
#undef LLAMA3
#undef BOS
#undef EOS

// A checkpoint's own templates that were rendered beside ours on the test's dialogues, by digest. Reviewed by hand.
struct KnownTemplate {
  std::string_view digest, name;
};
constexpr KnownTemplate kKnown[] = {
#include "data/known_templates.inc"
};

class Writer {
 public:
  // Of the table, where \1 and \2 stand for special tokens.
  void fixed(std::string_view text, bool counts = false) {
    while (!text.empty()) {
      if (text[0] == '\1' || text[0] == '\2') {
        pieces_.push_back({text[0] == '\1' ? Piece::Kind::Begin : Piece::Kind::End, {}, counts});
        text.remove_prefix(1);
        continue;
      }
      const auto end = std::min(text.find_first_of("\1\2"), text.size());
      words(text.substr(0, end), counts);
      text.remove_prefix(end);
    }
  }
  void words(std::string_view text, bool counts = false) {
    if (text.empty()) return;
    if (!pieces_.empty() && pieces_.back().kind == Piece::Kind::Text && pieces_.back().counts == counts)
      pieces_.back().text += text;
    else
      pieces_.push_back({Piece::Kind::Text, std::string(text), counts});
  }
  std::vector<Piece> take() { return std::move(pieces_); }

 private:
  std::vector<Piece> pieces_;
};

constexpr std::string_view kRoles[] = {"system", "user", "assistant"};

void check_order(const ChatFormat& format, std::span<const Message> turns) {
  for (std::size_t i = 0; i < turns.size(); ++i) {
    const auto expected = i % 2 == 0 ? Role::User : Role::Assistant;
    if (format.order == Order::Alternating && turns[i].role != expected)
      throw BadRecord(fmt::format("the chat template {} wants user and assistant in turn, but turn {} is of the {}",
                                  format.name, i + 1, kRoles[static_cast<std::size_t>(turns[i].role)]));
  }
}

bool is_white_space(std::uint32_t c) {
  return (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

// A tag of Jinja at the beginning of a text, up to its end; a bracket within a quoted word does not end it.
std::size_t tag_length(std::string_view text) {
  if (text.empty()) return 0;
  const bool comment = text[1] == '#';
  const char ends_with = text[1] == '{' ? '}' : text[1];
  char quote = 0;
  for (std::size_t i = 2; i + 1 < text.size(); ++i) {
    if (quote) {
      if (text[i] == '\\')
        ++i;
      else if (text[i] == quote)
        quote = 0;
    } else if (!comment && (text[i] == '\'' || text[i] == '"')) {
      quote = text[i];
    } else if (text[i] == ends_with && text[i + 1] == '}') {
      return i + 2;
    }
  }
  return text.size();
}

// Each run of white space as one space, but within quoted words.
std::string with_single_spaces(std::string_view tag) {
  std::string plain;
  char quote = 0;
  for (std::size_t i = 0; i < tag.size(); ++i) {
    const char c = tag[i];
    const bool white = c == ' ' || c == '\t' || c == '\r' || c == '\n';
    if (white && !quote) {
      if (!plain.ends_with(' ')) plain += ' ';
      continue;
    }
    plain += c;
    if (quote && c == '\\' && i + 1 < tag.size())
      plain += tag[++i];
    else if (quote ? c == quote : c == '\'' || c == '"')
      quote = quote ? '\0' : c;
  }
  return plain;
}

}  // namespace

std::string_view trimmed_like_python(std::string_view text) {
  while (!text.empty()) {
    std::size_t next = 0;
    if (!is_white_space(hf::next_code_point(text, next))) break;
    text.remove_prefix(next);
  }
  while (!text.empty()) {
    const auto last = hf::last_code_point(text);
    if (!is_white_space(last)) break;
    text.remove_suffix(last < 0x80 ? 1 : last < 0x800 ? 2 : 3);
  }
  return text;
}

std::vector<std::string> chat_format_names() {
  std::vector<std::string> names;
  for (const auto& format : kFormats) names.emplace_back(format.name);
  return names;
}

const ChatFormat& chat_format(std::string_view name) {
  for (const auto& format : kFormats)
    if (format.name == name) return format;
  throw Error(fmt::format("there is no chat template '{}'; there are: {}", name, fmt::join(chat_format_names(), ", ")));
}

std::vector<Piece> render(const ChatFormat& format, std::span<const Message> messages, Ending ending) {
  if (messages.empty()) throw BadRecord("the conversation is empty");
  const bool named = messages[0].role == Role::System;
  auto turns = messages;
  std::optional<std::string_view> system = format.without_system;
  if (named && (format.system_at != SystemAt::Turn || format.order == Order::Alternating || format.without_system)) {
    if (format.system_at == SystemAt::Nowhere)
      throw BadRecord(fmt::format("the chat template {} has no system role", format.name));
    system = messages[0].content;
    turns = messages.subspan(1);
  }
  check_order(format, turns);
  const bool trims_all = format.trim == Trim::Content || format.trim == Trim::WithSystem;
  const auto trimmed = [&](std::string_view text) { return trims_all ? trimmed_like_python(text) : text; };

  Writer out;
  out.fixed(format.begin);
  std::size_t bearer = turns.size();  // the user's turn that bears the system's words
  if (system && format.system_at == SystemAt::Turn) {
    out.fixed(format.system.before);
    out.words(trimmed(*system));
    out.fixed(format.system.after);
  } else if (system) {
    for (std::size_t i = 0; i < turns.size(); ++i)
      if (turns[i].role == Role::User && bearer == turns.size()) bearer = i;
    if (bearer == turns.size())
      throw BadRecord(fmt::format("the chat template {} puts the system's words into a user's turn, and there is none",
                                  format.name));
  }
  bool first_user = true;
  for (std::size_t i = 0; i < turns.size(); ++i) {
    const auto& content = turns[i].content;
    switch (turns[i].role) {
      case Role::System:
        out.fixed(format.system.before);
        out.words(trimmed(content));
        out.fixed(format.system.after);
        break;
      case Role::User: {
        if (!std::exchange(first_user, false)) out.fixed(format.between);
        out.fixed(format.user.before);
        if (i != bearer) {
          out.words(trimmed(content));
        } else {
          const auto before = fmt::format("{}{}{}", format.system.before, *system, format.system.after);
          const auto whole = before + (format.trim == Trim::Content ? std::string(trimmed(content)) : content);
          out.words(format.trim == Trim::WithSystem ? trimmed(whole) : std::string_view(whole));
        }
        out.fixed(format.user.after);
        break;
      }
      case Role::Assistant:
        out.fixed(format.assistant);
        out.fixed(format.lead, true);
        out.words(format.trim == Trim::Answers ? trimmed_like_python(content) : trimmed(content), true);
        out.fixed(format.close, true);
        out.fixed(format.gap);
        break;
    }
  }
  out.fixed(ending == Ending::OpenForReply ? format.open_for_reply : format.end);
  return out.take();
}

std::string chat_template_digest(std::string_view jinja) {
  constexpr std::string_view kWhite = " \t\r\n";
  std::string plain;
  if (jinja.ends_with('\n')) jinja.remove_suffix(1);  // as Jinja does
  bool trims = false;  // the tag before ends with '-': what follows loses its white space
  while (!jinja.empty()) {
    auto open = jinja.find('{');
    while (open != std::string_view::npos &&
           (open + 1 == jinja.size() || std::string_view("{%#").find(jinja[open + 1]) == std::string_view::npos))
      open = jinja.find('{', open + 1);
    open = std::min(open, jinja.size());
    auto text = jinja.substr(0, open);
    if (trims) text.remove_prefix(std::min(text.find_first_not_of(kWhite), text.size()));
    if (jinja.substr(open).substr(0, 3).ends_with('-')) text = text.substr(0, text.find_last_not_of(kWhite) + 1);
    plain += text;
    const auto tag = jinja.substr(open, tag_length(jinja.substr(open)));
    trims = tag.size() > 4 && tag[tag.size() - 3] == '-';
    if (!tag.starts_with("{#")) plain += with_single_spaces(tag);
    jinja.remove_prefix(open + tag.size());
  }
  return sha256_hex(plain);
}

std::optional<std::string> chat_format_by_digest(std::string_view digest) {
  for (const auto& known : kKnown)
    if (known.digest == digest) return std::string(known.name);
  return std::nullopt;
}

const ChatFormat& chat_format_of(const Tokenizer& tokenizer) {
  const auto* origin = dynamic_cast<const TokenizerOrigin*>(&tokenizer);
  const auto own = origin ? origin->chat_template() : std::nullopt;
  const auto names = fmt::format("template = one of {}", fmt::join(chat_format_names(), ", "));
  if (!own) throw Error(fmt::format("the checkpoint has no chat template of its own. Name one: {}", names));
  const auto digest = chat_template_digest(*own);
  if (const auto name = chat_format_by_digest(digest)) return chat_format(*name);
  throw Error(
      fmt::format("the checkpoint's own chat template (digest {}…) is none that is known here. Say which it is: {}",
                  digest.substr(0, 12), names));
}

}  // namespace hansa::data
