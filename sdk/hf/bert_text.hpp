// The normaliser BertNormalizer: cleans a text, sets ideographs apart, strips accents, lowers the case, each by the
// reference's own tables. Immutable: any thread.
#pragma once
#include <optional>
#include <string>
#include <string_view>

#include "hf/unicode_forms.hpp"

namespace hansa::hf {

class BertText {
 public:
  struct Options {
    bool clean = true, ideographs = true, strip_accents = true, lower_case = true;
  };
  explicit BertText(Options options);
  // `front_lost`: the text's first character was left out.
  std::string apply(std::string text, bool& front_lost) const;

 private:
  std::string cleaned(std::string_view text) const;
  Options options_;
  UnicodeForm decompose_{UnicodeForm::Kind::Nfd};
};

}  // namespace hansa::hf
