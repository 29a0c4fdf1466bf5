#include "nn/fast/passes.hpp"

#include "nn/fast/attention_kernel.hpp"
#include "nn/fast/head_kernel.hpp"

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
const Passes<T>& of(Instructions with, const Passes<T>& base, const Passes<T>& avx2, const Passes<T>& avx512) {
  return with == Instructions::Avx512 ? avx512 : with == Instructions::Avx2 ? avx2 : base;
}
#endif

Instructions best() {
  for (const auto with : {Instructions::Avx512, Instructions::Avx2})
    if (available(with)) return with;
  return Instructions::Base;
}

}  // namespace

#if defined(__x86_64__)
bool available(Instructions with) {
  return with == Instructions::Avx512 ? has_avx512() : with == Instructions::Base || has_avx2();
}
template <>
const Passes<float>& passes<float>(Instructions with) {
  return of(with, kBaseFloat, kAvx2Float, kAvx512Float);
}
template <>
const Passes<Half>& passes<Half>(Instructions with) {
  return of(with, kBaseHalf, kAvx2Half, kAvx512Half);
}
const AttentionKernel* attention_kernel() {
  static const auto* const chosen = has_avx512() ? &kAvx512Attention : nullptr;
  return chosen;
}
const HeadKernel* head_kernel() {
  static const auto* const chosen = has_avx512() ? &kAvx512Head : nullptr;
  return chosen;
}
#else
bool available(Instructions with) { return with == Instructions::Base; }
template <>
const Passes<float>& passes<float>(Instructions) {
  return kBaseFloat;
}
template <>
const Passes<Half>& passes<Half>(Instructions) {
  return kBaseHalf;
}
const AttentionKernel* attention_kernel() { return nullptr; }
const HeadKernel* head_kernel() { return nullptr; }
#endif

template <>
const Passes<float>& passes<float>() {
  static const auto& chosen = passes<float>(best());
  return chosen;
}
template <>
const Passes<Half>& passes<Half>() {
  static const auto& chosen = passes<Half>(best());
  return chosen;
}

}  // namespace hansa::nn::fast
