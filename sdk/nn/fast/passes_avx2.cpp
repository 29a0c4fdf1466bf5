#include "nn/fast/passes.hpp"

namespace hansa::nn::fast {
namespace {
constexpr int kLanes = 8;
#include "passes.inc"
}  // namespace

const Passes<float> kAvx2Float = table<float>();
const Passes<Half> kAvx2Half = table<Half>();

}  // namespace hansa::nn::fast
