#include "nn/memory_need.hpp"

#include <c10/core/CachingDeviceAllocator.h>
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

// A device that this LibTorch knows by name alone, with so many bytes free on its second one.
struct OtherDevice : c10::DeviceAllocator {
  bool initialized() override { return true; }
  void emptyCache(c10::MempoolId_t) override {}
  void recordStream(const c10::DataPtr&, c10::Stream) override {}
  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(c10::DeviceIndex) override { return {}; }
  void resetAccumulatedStats(c10::DeviceIndex) override {}
  void resetPeakStats(c10::DeviceIndex) override {}
  std::pair<std::size_t, std::size_t> getMemoryInfo(c10::DeviceIndex index) override {
    return {index == 1 ? 500'000 : 0, 1'000'000'000};
  }
  c10::DataPtr allocate(std::size_t) override { return {}; }
  void copy_data(void*, const void*, std::size_t) const override {}
};

}  // namespace

TEST_CASE("what is free is asked of the device that shall hold the weights") {
  static OtherDevice other;  // LibTorch keeps the address
  c10::SetAllocator(c10::DeviceType::XPU, &other);
  const auto free = free_memory_on({c10::DeviceType::XPU, 1});
  CHECK(free.bytes == 500'000);
  CHECK(free.limit == "xpu:1");
  CHECK_THROWS_WITH(require_memory("here", kModules, {.compute = DType::f32}, kQuantisable, free),
                    Catch::Contains("but xpu:1 leaves") && Catch::Contains("bf16"));
  CHECK(free_memory_on(at::kCPU).bytes > 500'000);
}

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
