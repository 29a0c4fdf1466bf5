#include "nn/fast/passes.hpp"

namespace hansa::nn::fast {
namespace {
constexpr int kLanes = 8;
#include "passes.inc"
}  // namespace

const Passes<float> kBaseFloat = table<float>();
const Passes<Half> kBaseHalf = table<Half>();

}  // namespace hansa::nn::fast
