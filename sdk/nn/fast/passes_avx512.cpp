#include <immintrin.h>

#include "nn/fast/passes.hpp"

namespace hansa::nn::fast {
namespace {
constexpr int kLanes = 16;
#include "passes.inc"
}  // namespace

const Passes<float> kAvx512Float = table<float>();
const Passes<Half> kAvx512Half = table<Half>();

}  // namespace hansa::nn::fast
