#include "seeds/directions.hpp"

#include <algorithm>
#include <chrono>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernel.hpp"

namespace hansa::seeds {
namespace {

struct Terms {  // as two arrays, which is what the kernel reads
  explicit Terms(std::span<const Term> terms) {
    seeds.reserve(terms.size());
    weights.reserve(terms.size());
    for (const auto& term : terms) {
      seeds.push_back(term.seed);
      weights.push_back(term.weight);
    }
  }
  std::vector<std::uint32_t> seeds;
  std::vector<float> weights;
};

void run(Instructions with, const Terms& terms, const Place& place, std::uint64_t group, std::uint64_t groups,
         float* to) {
  const kernel::Job job{terms.seeds.data(),
                        terms.weights.data(),
                        terms.seeds.size(),
                        place.family,
                        place.tensor,
                        place.first / kGroup + group,
                        groups,
                        to};
  switch (with) {
    case Instructions::Scalar: return kernel::add_scalar(job);
#if defined(__x86_64__)
    case Instructions::Avx2: return kernel::add_avx2(job);
    case Instructions::Avx512: return kernel::add_avx512(job);
#else
    default: break;
#endif
  }
}

void check(Instructions with, const Place& place) {
  if (!available(with))
    throw std::invalid_argument("this machine has no " + std::string(name_of(with)) + " instructions");
  if (place.first % kGroup != 0)
    throw std::invalid_argument("a part of a tensor starts at a multiple of 128 elements, not at " +
                                std::to_string(place.first));
}

}  // namespace

bool available(Instructions with) {
#if defined(__x86_64__)
  if (with == Instructions::Avx2) return __builtin_cpu_supports("avx2");
  if (with == Instructions::Avx512) return __builtin_cpu_supports("avx512f");
#endif
  return with == Instructions::Scalar;
}

Instructions fastest() {
  for (auto with : {Instructions::Avx512, Instructions::Avx2})
    if (available(with)) return with;
  return Instructions::Scalar;
}

std::string_view name_of(Instructions with) {
  switch (with) {
    case Instructions::Scalar: return "scalar";
    case Instructions::Avx2: return "avx2";
    case Instructions::Avx512: return "avx512";
  }
  return "?";
}

void add(Instructions with, std::span<const Term> terms, const Place& place, std::span<float> to) {
  check(with, place);
  const Terms held(terms);
  const auto whole = to.size() / kGroup, rest = to.size() % kGroup;
  run(with, held, place, 0, whole, to.data());
  if (rest == 0) return;
  std::array<float, kGroup> tail{};
  const auto part = to.subspan(whole * kGroup);
  std::copy(part.begin(), part.end(), tail.begin());
  run(with, held, place, whole, 1, tail.data());
  std::copy_n(tail.begin(), rest, part.begin());
}

void rebuild(Instructions with, const Rebuild& how, std::span<const Term> terms, const Place& place,
             std::span<const float> base, std::span<float> to) {
  check(with, place);
  if (base.size() != to.size()) throw std::invalid_argument("a rebuild writes as many elements as its base has");
  const Terms held(terms);
  constexpr std::uint64_t kGroups = 8;
  std::array<float, kGroups * kGroup> sum;
  for (std::uint64_t at = 0; at < to.size(); at += sum.size()) {
    const auto count = std::min<std::uint64_t>(sum.size(), to.size() - at);
    sum.fill(0);
    run(with, held, place, at / kGroup, (count + kGroup - 1) / kGroup, sum.data());
    for (std::uint64_t i = 0; i < count; ++i) to[at + i] = how.kept * base[at + i] - how.rate * sum[i];
  }
}

double seconds_per_element(Instructions with) {
  check(with, {});
  constexpr std::uint64_t kTerms = 64, kElements = 16 * kGroup;
  std::vector<Term> terms;
  for (std::uint32_t i = 0; i < kTerms; ++i) terms.push_back({i, 1});
  std::vector<float> to(kElements);
  double best = 1;
  for (int i = 0; i < 8; ++i) {  // the fastest: the first finds cold caches, others may be interrupted
    const auto before = std::chrono::steady_clock::now();
    add(with, terms, {}, to);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - before;
    best = std::min(best, took.count());
  }
  return best / static_cast<double>(kTerms * kElements);
}

std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t first = std::uint64_t{0xD2511F53u} * counter[0];
    const std::uint64_t second = std::uint64_t{0xCD9E8D57u} * counter[2];
    counter = {static_cast<std::uint32_t>(second >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(second),
               static_cast<std::uint32_t>(first >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(first)};
    key = {key[0] + 0x9E3779B9u, key[1] + 0xBB67AE85u};
  }
  return counter;
}

}  // namespace hansa::seeds
