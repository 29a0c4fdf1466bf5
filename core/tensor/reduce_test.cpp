#include "tensor/reduce.hpp"

#include <ATen/ops/arange.h>

#include <limits>
#include <vector>

#include "base/error.hpp"
#include "base/rng.hpp"
#include "test.hpp"

using namespace hansa;

namespace {

std::vector<float> values(std::size_t count) {
  SplitMix64 rng(count);
  std::vector<float> made(count);
  for (auto& v : made) v = static_cast<float>(rng.uniform() - 0.5);
  return made;
}

}  // namespace

TEST_CASE("the squared norm is that of a plain sum in extended precision") {
  for (std::size_t count : {0, 1, 15, 16, 17, 1000, 100003}) {
    const auto v = values(count);
    long double want = 0;
    for (float x : v) want += static_cast<long double>(x) * x;
    CHECK(squared_norm(v).value == Approx(static_cast<double>(want)).epsilon(1e-13));
    CHECK(squared_norm(v).all_finite());
  }
}

TEST_CASE("the squared norm does not depend on the address") {
  auto v = values(5001);
  std::vector<float> shifted(v.size() + 3);
  std::copy(v.begin(), v.end(), shifted.begin() + 3);
  CHECK(squared_norm(v).value == squared_norm(std::span(shifted).subspan(3)).value);
}

TEST_CASE("one NaN or infinity anywhere is seen, the largest floats are finite") {
  for (float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                    -std::numeric_limits<float>::infinity()})
    for (std::size_t at : {std::size_t{0}, std::size_t{100}, std::size_t{4096}}) {
      auto v = values(4097);
      v[at] = bad;
      CHECK_FALSE(squared_norm(v).all_finite());
    }
  CHECK(squared_norm(std::vector<float>(1000, std::numeric_limits<float>::max())).all_finite());
}

TEST_CASE("a tensor must be contiguous fp32") {
  const auto tensor = at::arange(12, at::kFloat).view({3, 4});
  CHECK(squared_norm(tensor).value == 506);
  CHECK_THROWS_AS(squared_norm(tensor.t()), Error);
  CHECK_THROWS_AS(squared_norm(tensor.to(at::kDouble)), Error);
}

TEST_CASE("the squared norm of pieces is that of the whole, bit for bit") {
  const auto v = values(100003);
  for (std::size_t piece : {16, 48, 4096}) {
    RunningSquaredNorm norm;
    for (std::size_t from = 0; from < v.size(); from += piece) {
      norm.add(std::span(v).subspan(from, std::min(piece, v.size() - from)));
    }
    CHECK(norm.value().value == squared_norm(v).value);
  }
}
