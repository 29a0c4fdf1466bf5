// Where a user-perceived character ends (Unicode annex 29, extended grapheme clusters): the charsmap of Unigram tokenizers
// is applied to them. Pure functions: any thread.
#pragma once
#include <cstddef>
#include <string_view>

namespace hansa::hf {

// The end of the cluster that begins at `begin` (less than the size) of a valid text.
std::size_t cluster_end(std::string_view text, std::size_t begin);

}  // namespace hansa::hf
