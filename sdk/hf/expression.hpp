// The regular expressions of tokenizer.json, read as the reference's engine (Oniguruma, Ruby syntax) reads them, into
// sets of code points and structure. Called while a tokenizer is opened. Throws Error naming what is not supported.
#pragma once
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "hf/code_points.hpp"

namespace hansa::hf {

// One code point out of a set, or PCRE2 syntax that stands for itself: "(?:", "|", "*+", "^" ...
using ExpressionItem = std::variant<CodePointSet, std::string>;

std::vector<ExpressionItem> parse_expression(std::string_view expression);

}  // namespace hansa::hf
