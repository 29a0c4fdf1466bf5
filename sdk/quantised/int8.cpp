#include "quantised/int8.hpp"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>

#include "quantised/numbers.hpp"

namespace hansa::quantised {

namespace {

constexpr float kStep = 7.874015718698502e-3F;  // 1 / 127

template <class To>
void expand_rows(const Int8& held, To* to, std::int64_t first, std::int64_t last) {
  const auto columns = held.codes.size(1);
  for (auto row = first; row < last; ++row) {
    const auto* codes = held.codes.const_data_ptr<std::int8_t>() + row * columns;
    const float most = held.largest.const_data_ptr<float>()[row];
    auto* out = to + row * columns;
    for (std::int64_t i = 0; i < columns; ++i) out[i] = rounded(static_cast<float>(codes[i]) * most * kStep, out);
  }
}

}  // namespace

Int8 to_int8(const at::Tensor& weight) {
  const at::NoGradGuard no_grad;
  const auto rows = weight.size(0), columns = weight.size(1);
  const Int8 held{at::empty({rows, columns}, at::kChar), at::empty({rows}, at::kFloat)};
  at::parallel_for(0, rows, 16, [&](std::int64_t first, std::int64_t last) {
    for (auto row = first; row < last; ++row) {
      const auto* values = weight.const_data_ptr<float>() + row * columns;
      auto* codes = held.codes.mutable_data_ptr<std::int8_t>() + row * columns;
      const float most = largest(values, columns);
      held.largest.mutable_data_ptr<float>()[row] = most;
      const float factor = most > 0 ? 1.0F / most * 127.0F : 0;  // in the order of LibTorch
      for (std::int64_t i = 0; i < columns; ++i) {
        // Beyond 127 only where the row is so small that its factor is infinite.
        const float value = std::nearbyint(values[i] * factor);
        codes[i] = static_cast<std::int8_t>(value > 127 ? 127 : value > -127 ? value : -127);
      }
    }
  });
  return held;
}

Int8 on(const Int8& held, at::Device device) { return {held.codes.to(device), held.largest.to(device)}; }

void dequantise_by_operators(const Int8& held, const at::Tensor& into) {
  const at::NoGradGuard no_grad;
  into.copy_(held.codes.to(at::kFloat).mul_(held.largest.unsqueeze(1)).mul_(kStep));
}

void dequantise(const Int8& held, const at::Tensor& into) {
  if (!into.is_cpu()) return dequantise_by_operators(held, into);
  at::parallel_for(0, held.codes.size(0), 16, [&](std::int64_t first, std::int64_t last) {
    if (into.scalar_type() == at::kFloat)
      expand_rows(held, into.mutable_data_ptr<float>(), first, last);
    else
      expand_rows(held, reinterpret_cast<std::uint16_t*>(into.mutable_data_ptr<at::BFloat16>()), first, last);
  });
}

}  // namespace hansa::quantised
