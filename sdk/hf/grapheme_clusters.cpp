#include "hf/grapheme_clusters.hpp"

#include <unicode/uchar.h>
#include <unicode/uscript.h>

#include "hf/code_points.hpp"

namespace hansa::hf {
namespace {

enum class Kind { Other, Control, Joins, Prepended, Regional, HangulL, HangulV, HangulT, HangulLV, HangulLVT };

bool between(std::uint32_t c, std::uint32_t first, std::uint32_t last) { return c >= first && c <= last; }

CodePointSet controls() {
  CodePointSet set;
  for (const auto* name : {"Cc", "Cf", "Zl", "Zp"}) set.add(*property(name));
  return set;
}

Kind kind_of(std::uint32_t c) {
  if (between(c, 0x20, 0x7E)) return Kind::Other;
  static const CodePointTable joins_before(joins_cluster_before()), joins_after(joins_cluster_after()),
      control(controls());
  if (joins_before.contains(c)) return Kind::Joins;
  if (joins_after.contains(c)) return Kind::Prepended;
  if (control.contains(c)) return Kind::Control;
  if (between(c, 0x1F1E6, 0x1F1FF)) return Kind::Regional;
  if (between(c, 0x1100, 0x115F) || between(c, 0xA960, 0xA97C)) return Kind::HangulL;
  if (between(c, 0x1160, 0x11A7) || between(c, 0xD7B0, 0xD7C6)) return Kind::HangulV;
  if (between(c, 0x11A8, 0x11FF) || between(c, 0xD7CB, 0xD7FB)) return Kind::HangulT;
  if (between(c, 0xAC00, 0xD7A3)) return (c - 0xAC00) % 28 == 0 ? Kind::HangulLV : Kind::HangulLVT;
  return Kind::Other;
}

bool hangul_goes_on(Kind before, Kind now) {
  switch (before) {
    case Kind::HangulL:
      return now == Kind::HangulL || now == Kind::HangulV || now == Kind::HangulLV || now == Kind::HangulLVT;
    case Kind::HangulV:
    case Kind::HangulLV: return now == Kind::HangulV || now == Kind::HangulT;
    case Kind::HangulT:
    case Kind::HangulLVT: return now == Kind::HangulT;
    default: return false;
  }
}

bool is_pictograph(std::uint32_t c) {
  return c >= 0x80 && u_hasBinaryProperty(static_cast<UChar32>(c), UCHAR_EXTENDED_PICTOGRAPHIC) != 0;
}

// Conjuncts (rule GB9c) are formed in six scripts.
bool is_linker(std::uint32_t c) {
  switch (c) {
    case 0x94D:
    case 0x9CD:
    case 0xACD:
    case 0xB4D:
    case 0xC4D:
    case 0xD4D: return true;
    default: return false;
  }
}
bool is_conjunct_consonant(std::uint32_t c) {
  if (!between(c, 0x900, 0xD7F)) return false;
  const auto script = u_getIntPropertyValue(static_cast<UChar32>(c), UCHAR_SCRIPT);
  if (script == USCRIPT_GURMUKHI || script == USCRIPT_TAMIL || script == USCRIPT_KANNADA) return false;
  return u_getIntPropertyValue(static_cast<UChar32>(c), UCHAR_INDIC_SYLLABIC_CATEGORY) == U_INSC_CONSONANT;
}
// Joins a cluster without ending a conjunct: all marks but the few that space.
bool is_extending(std::uint32_t c) { return u_charType(static_cast<UChar32>(c)) != U_COMBINING_SPACING_MARK; }

}  // namespace

std::size_t cluster_end(std::string_view text, std::size_t begin) {
  auto end = begin;
  auto c = next_code_point(text, end);
  auto before = kind_of(c);
  if (c == '\r') return end < text.size() && text[end] == '\n' ? end + 1 : end;
  bool pictograph = is_pictograph(c), after_joiner = false;        // a pictograph, its extensions, a joiner
  bool conjunct = is_conjunct_consonant(c), after_linker = false;  // a consonant, its extensions, one of them a linker
  bool regional_waits = before == Kind::Regional;                  // for the second half of a flag
  while (end < text.size()) {
    auto after = end;
    c = next_code_point(text, after);
    const auto now = kind_of(c);
    if (before == Kind::Control || now == Kind::Control) return end;
    const bool consonant = now == Kind::Other && is_conjunct_consonant(c);
    bool joined = now == Kind::Joins || before == Kind::Prepended || hangul_goes_on(before, now);
    if (now == Kind::Other && pictograph && after_joiner && is_pictograph(c)) joined = true;
    if (consonant && conjunct && after_linker) joined = true;
    if (now == Kind::Regional && regional_waits && before == Kind::Regional) {
      joined = true;
      regional_waits = false;
    } else if (now == Kind::Regional) {
      regional_waits = true;
    }
    if (!joined) return end;
    if (now == Kind::Joins) {
      after_joiner = c == 0x200D;
      after_linker = conjunct && (after_linker || is_linker(c));
      if (!is_extending(c)) pictograph = conjunct = after_linker = false;
    } else {
      pictograph = is_pictograph(c);
      conjunct = consonant;
      after_joiner = after_linker = false;
    }
    before = now;
    end = after;
  }
  return end;
}

}  // namespace hansa::hf
