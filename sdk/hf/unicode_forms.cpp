#include "hf/unicode_forms.hpp"

#include <unicode/bytestream.h>
#include <unicode/normalizer2.h>
#include <unicode/uniset.h>

#include <algorithm>

#include <fmt/format.h>

#include "base/error.hpp"

namespace hansa::hf {
namespace {

void require(UErrorCode status) {
  if (U_FAILURE(status)) throw Error(fmt::format("ICU cannot normalise a text: {}", u_errorName(status)));
}

const icu::Normalizer2* instance(UnicodeForm::Kind kind, UErrorCode& status) {
  switch (kind) {
    case UnicodeForm::Kind::Nfc: return icu::Normalizer2::getNFCInstance(status);
    case UnicodeForm::Kind::Nfd: return icu::Normalizer2::getNFDInstance(status);
    case UnicodeForm::Kind::Nfkc: return icu::Normalizer2::getNFKCInstance(status);
    case UnicodeForm::Kind::Nfkd: break;
  }
  return icu::Normalizer2::getNFKDInstance(status);
}

}  // namespace

struct UnicodeForm::State {
  icu::UnicodeSet known;
  std::unique_ptr<icu::FilteredNormalizer2> normalizer;
};

UnicodeForm::UnicodeForm(Kind kind) : state_(std::make_unique<State>()) {
  UErrorCode status = U_ZERO_ERROR;
  state_->known.applyPattern(icu::UnicodeString::fromUTF8("[:age=9.0:]"), status);
  require(status);
  state_->known.freeze();
  const auto* form = instance(kind, status);
  require(status);
  state_->normalizer = std::make_unique<icu::FilteredNormalizer2>(*form, state_->known);
}
UnicodeForm::~UnicodeForm() = default;
UnicodeForm::UnicodeForm(UnicodeForm&&) noexcept = default;
UnicodeForm& UnicodeForm::operator=(UnicodeForm&&) noexcept = default;

std::string UnicodeForm::apply(std::string text) const {
  if (is_ascii(text)) return text;
  std::string out;
  out.reserve(text.size());
  icu::StringByteSink<std::string> sink(&out);
  UErrorCode status = U_ZERO_ERROR;
  state_->normalizer->normalizeUTF8(0, icu::StringPiece(text.data(), static_cast<std::int32_t>(text.size())), sink,
                                    nullptr, status);
  require(status);
  return out;
}

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

}  // namespace hansa::hf
