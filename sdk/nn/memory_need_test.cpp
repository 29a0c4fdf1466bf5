#include "nn/memory_need.hpp"

#include <quantised/held_bytes.hpp>

#include "base/error.hpp"
#include "test.hpp"

namespace hansa::nn {
namespace {

using Kind = Module::Kind;
const std::vector<Module> kModules = {{"embedding", Kind::Embedding, 1000, 64, false, false},
                                      {"attention", Kind::Attention, 2, 32, false, false},
                                      {"up", Kind::Linear, 64, 640, true, false},
                                      {"norm", Kind::Norm, 0, 64, false, false},
                                      {"head", Kind::Head, 64, 1000, false, false}};
const std::vector<bool> kQuantisable = {false, false, true, false, false};
constexpr std::uint64_t kTable = 64000, kLinear = 40960, kSmall = 640 + 64;  // numbers

}  // namespace

TEST_CASE("the need is what is held, and the largest weight in fp32 where it is made smaller") {
  CHECK(quantised::held_bytes(kModules, DType::f32, BaseDtype::Compute, kQuantisable) ==
        4 * (2 * kTable + kLinear + kSmall));
  CHECK(quantised::held_bytes(kModules, DType::bf16, BaseDtype::Int8, kQuantisable) ==
        2 * (2 * kTable + kSmall) + kLinear + 4 * 640 + 4 * kLinear);
  const auto nf4 = kLinear / 2 + kLinear / 64 + 4 * (3 + 1);  // 640 blocks in 3 spans
  CHECK(quantised::held_bytes(kModules, DType::bf16, BaseDtype::Nf4, kQuantisable) ==
        2 * (2 * kTable + kSmall) + nf4 + 4 * kLinear);
}

TEST_CASE("a base that does not fit is refused with how much, who limits, and what would fit") {
  const auto sentence = [](std::uint64_t bytes) {
    try {
      require_memory("here", kModules, {.compute = DType::f32}, kQuantisable, {bytes, "the machine"});
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  CHECK(sentence(1 << 20) == "");
  const auto tight = sentence(500'000);
  CHECK(tight.find("compute = \"f32\" the weights alone take 0.00 GB, but the machine leaves 0.00 GB") !=
        std::string::npos);
  CHECK(tight.find("; compute = \"bf16\" takes") != std::string::npos);
  CHECK(sentence(1000).find("even base_dtype = \"nf4\" with compute = \"bf16\" takes") != std::string::npos);
}

}  // namespace hansa::nn
