#include "nn/fast/passes.hpp"
#include "nn/fast/attention_kernel.hpp"

namespace hansa::nn::fast {

namespace {

#if defined(__x86_64__)
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512bf16");
}
template <class T>
const Passes<T>& choose(const Passes<T>& avx512, const Passes<T>& avx2, const Passes<T>& base) {
  return has_avx512() ? avx512 : has_avx2() ? avx2 : base;
}
#endif

}  // namespace

#if defined(__x86_64__)
template <>
const Passes<float>& passes<float>() {
  static const auto& chosen = choose(kAvx512Float, kAvx2Float, kBaseFloat);
  return chosen;
}
template <>
const Passes<Half>& passes<Half>() {
  static const auto& chosen = choose(kAvx512Half, kAvx2Half, kBaseHalf);
  return chosen;
}
const AttentionKernel* attention_kernel() {
  static const auto* const chosen = has_avx512() ? &kAvx512Attention : nullptr;
  return chosen;
}
#else
template <>
const Passes<float>& passes<float>() {
  return kBaseFloat;
}
template <>
const Passes<Half>& passes<Half>() {
  return kBaseHalf;
}
const AttentionKernel* attention_kernel() { return nullptr; }
#endif

}  // namespace hansa::nn::fast
