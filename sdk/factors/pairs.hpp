// Low-rank pairs in layouts: groups {"lora", {A, B}, scale}, A [r, in], B [out, r]. Torch-free, pure; throws Error naming the
// rule that asks and the tensor that is no part of a pair.
#pragma once
#include <string_view>
#include <vector>

#include <hansa/types.hpp>

namespace hansa {
class Updates;
}

namespace hansa::factors {

inline constexpr std::string_view kPairKind = "lora";

struct Pair {
  Index A = 0, B = 0;  // positions in the layout
  double scale = 1;
};

// Every group of the layout as a pair. `rule` is who asks, in messages.
std::vector<Pair> pairs_of(const Layout&, std::string_view rule);
// The same for one group of a round: throws unless A and B both travel.
void require_pair(const Updates&, std::string_view rule);

// The clients' weights divided by their sum, in their order; throws when they sum to nothing.
std::vector<double> shares_of(const Updates&, std::string_view rule);

}  // namespace hansa::factors
