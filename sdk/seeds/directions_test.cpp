#include "seeds/directions.hpp"

#include <cmath>
#include <cstring>
#include <numbers>
#include <vector>

#include "test.hpp"

using namespace hansa::seeds;
using Catch::Matchers::Contains;

namespace {

constexpr Instructions kAll[] = {Instructions::Scalar, Instructions::Avx2, Instructions::Avx512};
std::vector<Instructions> here() {
  std::vector<Instructions> found;
  for (auto with : kAll)
    if (available(with)) found.push_back(with);
  return found;
}

// One element by the definition, in double precision and with the library's functions.
double naive(std::uint32_t seed, std::uint32_t family, std::uint32_t tensor, std::uint64_t i) {
  const std::uint64_t c = 16 * (i / 128) + i % 16;
  const auto words =
      philox({static_cast<std::uint32_t>(c), static_cast<std::uint32_t>(c >> 32), tensor, 0}, {seed, family});
  const auto x = words[i % 128 / 16 / 2];
  const bool second = i % 128 / 16 % 2 == 1;
  const double r = std::sqrt(-2 * std::log((x / 65536 + 0.5) / 65536));
  const double phi = std::numbers::pi / 2 * (x % 16384 + 0.5) / 16384;
  return second ? r * std::sin(phi) * ((x >> 14 & 1) ? -1 : 1) : r * std::cos(phi) * ((x >> 15 & 1) ? -1 : 1);
}

std::vector<float> direction(Instructions with, const Place& place, std::uint32_t seed, std::size_t count) {
  std::vector<float> to(count, 0.0f);
  const Term term{seed, 1};
  add(with, {&term, 1}, place, to);
  return to;
}

std::vector<Term> some_terms(std::uint32_t count) {
  std::vector<Term> terms;
  for (std::uint32_t i = 0; i < count; ++i) terms.push_back({i * i + 3, 0.37f * static_cast<float>(i % 11) - 1.5f});
  return terms;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace

TEST_CASE("the generator gives the known answers of Random123 for philox4x32 with ten rounds") {
  using Four = std::array<std::uint32_t, 4>;
  CHECK(philox({0, 0, 0, 0}, {0, 0}) == Four{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  constexpr std::uint32_t kOnes = 0xffffffff;
  CHECK(philox({kOnes, kOnes, kOnes, kOnes}, {kOnes, kOnes}) == Four{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
        Four{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("each element is the definition's, as computed in double precision") {
  const Place place{.family = 9, .tensor = 5, .first = 128 * 7};
  for (auto with : here()) {
    const auto z = direction(with, place, 12345, 1000);
    for (std::size_t i = 0; i < z.size(); ++i) REQUIRE(z[i] == Approx(naive(12345, 9, 5, 128 * 7 + i)).margin(2e-5));
  }
  // Far into a tensor of more elements than a counter's low word has values.
  const Place far{.first = 128ull * 0x20000005ull};
  const auto z = direction(fastest(), far, 1, 128);
  CHECK(z[100] == Approx(naive(1, 0, 0, far.first + 100)).margin(2e-5));
  CHECK_FALSE(same_bits(z, direction(fastest(), {.first = 128ull * 5}, 1, 128)));
}

TEST_CASE("the normals have the moments and the tail of a normal, and directions do not resemble each other") {
  constexpr std::size_t kCount = 1 << 21;
  const auto z = direction(fastest(), {}, 77, kCount), other = direction(fastest(), {}, 78, kCount);
  double m1 = 0, m2 = 0, m3 = 0, m4 = 0, m6 = 0, cross = 0, shifted = 0, largest = 0, beyond2 = 0, beyond3 = 0;
  for (std::size_t i = 0; i < kCount; ++i) {
    const double x = z[i], square = x * x;
    m1 += x, m2 += square, m3 += square * x, m4 += square * square, m6 += square * square * square;
    cross += x * other[i];
    shifted += x * z[(i + 16) % kCount];  // the other half of the same word, or the next word
    largest = std::max(largest, std::abs(x));
    beyond2 += std::abs(x) > 2, beyond3 += std::abs(x) > 3;
  }
  const double n = kCount, deviation = 1 / std::sqrt(n);  // each bound is about five deviations of its estimate
  CHECK(std::abs(m1 / n) < 5 * deviation);
  CHECK(std::abs(m2 / n - 1) < 5 * std::sqrt(2) * deviation);
  CHECK(std::abs(m3 / n) < 5 * std::sqrt(15) * deviation);
  CHECK(std::abs(m4 / n - 3) < 5 * std::sqrt(96) * deviation);
  CHECK(std::abs(m6 / n - 15) < 5 * std::sqrt(10170) * deviation);
  CHECK(std::abs(cross / n) < 5 * deviation);
  CHECK(std::abs(shifted / n) < 5 * deviation);
  CHECK(std::abs(beyond2 / n - 0.0455003) < 5 * std::sqrt(0.0455 * 0.9545) * deviation);
  CHECK(std::abs(beyond3 / n - 0.0026998) < 5 * std::sqrt(0.0027) * deviation);
  CHECK(largest > 4.5);
  CHECK(largest < 4.87);
}

TEST_CASE("all sets of instructions give the same bits, at odd sizes and in parts") {
  const auto terms = some_terms(37);
  for (std::size_t count : {1u, 7u, 127u, 128u, 129u, 1000u, 4099u}) {
    std::vector<float> start(count);
    for (std::size_t i = 0; i < count; ++i) start[i] = 0.01f * static_cast<float>(i % 97) - 0.3f;
    const Place place{.family = 3, .tensor = 11, .first = 256};
    auto want = start;
    add(Instructions::Scalar, terms, place, want);
    std::vector<float> rebuilt(count);
    rebuild(Instructions::Scalar, {0.99f, 0.013f}, terms, place, start, rebuilt);
    for (auto with : here()) {
      auto got = start;
      add(with, terms, place, got);
      CHECK(same_bits(got, want));
      std::vector<float> again(count);
      rebuild(with, {0.99f, 0.013f}, terms, place, start, again);
      CHECK(same_bits(again, rebuilt));
      if (count <= 384) continue;
      auto parts = start;  // as threads would do it, with different instructions for each part
      add(with, terms, place, {parts.data(), 384});
      add(Instructions::Scalar, terms, {place.family, place.tensor, place.first + 384},
          {parts.data() + 384, count - 384});
      CHECK(same_bits(parts, want));
    }
  }
  CHECK(available(Instructions::Scalar));
  CHECK(available(fastest()));
}

TEST_CASE("a rebuild equals the naive sum in double precision") {
  const auto terms = some_terms(200);
  std::vector<float> base(333), got(333);
  for (std::size_t i = 0; i < base.size(); ++i) base[i] = static_cast<float>(std::sin(static_cast<double>(i)));
  const Place place{.family = 1, .tensor = 2};
  rebuild(fastest(), {0.5f, 0.01f}, terms, place, base, got);
  for (std::size_t i = 0; i < base.size(); ++i) {
    double sum = 0;
    for (const auto& term : terms) sum += term.weight * naive(term.seed, 1, 2, i);
    REQUIRE(got[i] == Approx(0.5 * base[i] - 0.01 * sum).margin(1e-5));
  }
  rebuild(fastest(), {1, 0.01f}, {}, place, base, got);
  CHECK(same_bits(got, base));
}

TEST_CASE("parts that start between groups and instructions that are missing are refused") {
  std::vector<float> to(4);
  CHECK_THROWS_WITH(add(Instructions::Scalar, {}, {.first = 64}, to), Contains("multiple of 128"));
  CHECK_THROWS_WITH(rebuild(Instructions::Scalar, {}, {}, {}, {}, to), Contains("as many elements"));
  for (auto with : kAll)
    if (!available(with)) CHECK_THROWS_WITH(add(with, {}, {}, to), Contains("no " + std::string(name_of(with))));
  CHECK(seconds_per_element(Instructions::Scalar) > 0);
}
