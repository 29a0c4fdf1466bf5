#include "hf/bert_text.hpp"

#include "hf/code_points.hpp"

namespace hansa::hf {
namespace {

struct Tables {
  CodePointTable removed{removed_by_bert()}, space{space_of_bert()}, ideograph{ideographs_of_bert()},
      mark{marks_of_bert()};
};

const Tables& tables() {
  static const Tables made;
  return made;
}

std::string without_marks(std::string text) {
  if (is_ascii(text)) return text;
  std::string out;
  out.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const auto begin = at;
    if (!tables().mark.contains(next_code_point(text, at))) out.append(text, begin, at - begin);
  }
  return out;
}

bool loses_front(std::string_view text, const CodePointTable& lost) {
  std::size_t at = 0;
  return !text.empty() && lost.contains(next_code_point(text, at));
}

}  // namespace

BertText::BertText(Options options) : options_(options) {}

std::string BertText::cleaned(std::string_view text) const {
  const auto& [removed, space, ideograph, mark] = tables();
  std::string out;
  out.reserve(text.size() + text.size() / 2);
  for (std::size_t at = 0; at < text.size();) {
    if (text[at] >= 0x20 && text[at] < 0x7F) {
      out.push_back(text[at++]);
      continue;
    }
    const auto begin = at;
    const auto c = next_code_point(text, at);
    if (options_.clean && removed.contains(c)) continue;
    if (options_.clean && space.contains(c)) {
      out.push_back(' ');
    } else if (options_.ideographs && ideograph.contains(c)) {
      out.append(" ").append(text.substr(begin, at - begin)).append(" ");
    } else {
      out.append(text.substr(begin, at - begin));
    }
  }
  return out;
}

std::string BertText::apply(std::string text, bool& front_lost) const {
  if (options_.clean || options_.ideographs) {
    if (options_.clean && loses_front(text, tables().removed)) front_lost = true;
    text = cleaned(text);
  }
  if (options_.strip_accents) {
    text = decompose_.apply(std::move(text));
    if (loses_front(text, tables().mark)) front_lost = true;
    text = without_marks(std::move(text));
  }
  if (options_.lower_case) {
    std::string lower;
    lower.reserve(text.size());
    for (std::size_t at = 0; at < text.size();) append_lower_case(lower, next_code_point(text, at));
    text = std::move(lower);
  }
  return text;
}

}  // namespace hansa::hf
