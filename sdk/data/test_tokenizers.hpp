// Tokenizers for tests, small enough that what they must give can be worked out by hand.
#pragma once
#include <map>
#include <string>
#include <vector>

#include <hansa/tokenizer.hpp>
#include <hansa/tokenizer_origin.hpp>

namespace hansa::data {

// Runs of letters, with a space before them if there is one, runs of other white space and single bytes, as byte-level
// tokenizers have them; "<s>" and "</s>" are special. Ids in the order of appearance.
class Words : public Tokenizer, public TokenizerOrigin {
 public:
  enum : std::int64_t { kBegin = 0, kEnd = 1 };
  Words() {
    for (const auto* text : {"<s>", "</s>"}) number(text);
  }
  std::vector<std::int64_t> encode(std::string_view text) const override {
    std::vector<std::int64_t> ids;
    for (const auto& [first, count] : cut(text)) ids.push_back(number(std::string(text.substr(first, count))));
    return ids;
  }
  std::string decode(const std::vector<std::int64_t>& ids) const override {
    std::string text;
    for (const auto id : ids)
      if (id > kEnd) text += texts_[static_cast<std::size_t>(id)];
    return text;
  }
  std::int64_t size() const override { return 1 << 20; }
  std::optional<std::int64_t> begin_of_text() const override { return kBegin; }
  std::optional<std::int64_t> end_of_text() const override { return kEnd; }
  std::string digest() const override { return digest_; }
  std::string written(std::int64_t id) const override {
    return id < 0 || static_cast<std::size_t>(id) >= texts_.size() ? std::string()
                                                                   : texts_[static_cast<std::size_t>(id)];
  }
  std::optional<std::string> chat_template() const override { return own_template; }

  // Where the tokens of a text lie.
  static std::vector<std::pair<std::size_t, std::size_t>> cut(std::string_view text) {
    const auto letter = [&](std::size_t i) { return i < text.size() && text[i] >= 'a' && text[i] <= 'z'; };
    std::vector<std::pair<std::size_t, std::size_t>> pieces;
    for (std::size_t at = 0; at < text.size();) {
      auto end = at;
      if (text.substr(at).starts_with("<s>")) {
        end += 3;
      } else if (text.substr(at).starts_with("</s>")) {
        end += 4;
      } else if (letter(at) || (text[at] == ' ' && letter(at + 1))) {
        while (letter(++end)) continue;
      } else if (text[at] == ' ' || text[at] == '\n') {
        while (end < text.size() && (text[end] == ' ' || text[end] == '\n') && !(text[end] == ' ' && letter(end + 1)))
          ++end;
      } else {
        ++end;
      }
      pieces.emplace_back(at, end - at);
      at = end;
    }
    return pieces;
  }

  std::optional<std::string> own_template;
  std::string digest_ = "words";

 private:
  std::int64_t number(const std::string& text) const {
    const auto [at, fresh] = ids_.try_emplace(text, static_cast<std::int64_t>(texts_.size()));
    if (fresh) texts_.push_back(text);
    return at->second;
  }
  mutable std::map<std::string, std::int64_t> ids_;
  mutable std::vector<std::string> texts_;
};

}  // namespace hansa::data
