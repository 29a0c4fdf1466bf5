// NFC, NFD, NFKC, NFKD as the reference has them: with the Unicode 9 tables, to which later characters are inert. By ICU,
// filtered to that version. Immutable: any thread. Throws Error.
#pragma once
#include <memory>
#include <string>
#include <string_view>

namespace hansa::hf {

class UnicodeForm {
 public:
  enum class Kind { Nfc, Nfd, Nfkc, Nfkd };
  explicit UnicodeForm(Kind kind);
  ~UnicodeForm();
  UnicodeForm(UnicodeForm&&) noexcept;
  UnicodeForm& operator=(UnicodeForm&&) noexcept;
  std::string apply(std::string text) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

bool is_ascii(std::string_view text);

}  // namespace hansa::hf
