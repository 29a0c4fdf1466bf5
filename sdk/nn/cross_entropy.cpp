#include "nn/cross_entropy.hpp"

#include <algorithm>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <torch/csrc/autograd/custom_function.h>

#include "nn/fast/head_kernel.hpp"
#include "nn/fast/passes.hpp"
#include "nn/fast/shared_out.hpp"

namespace hansa::nn {

std::int64_t default_chunk_rows(std::int64_t vocabulary) {
  constexpr std::int64_t kElements = 1 << 23;  // of a chunk of logits: 16 MB in bf16
  return std::clamp<std::int64_t>(kElements / std::max<std::int64_t>(vocabulary, 1), 64, 1024);
}

namespace {

// Turns logits into softmax - onehot in place and returns the chunk's nats.
at::Tensor soften(at::Tensor& logits, const at::Tensor& labels) {
  auto index = labels.unsqueeze(1);
  auto largest = logits.amax(1, true);
  logits.sub_(largest);
  auto of_label = logits.gather(1, index);
  logits.exp_();
  auto sums = logits.sum(1, true);
  auto nats = (sums.log() - of_label).sum(at::kDouble);
  logits.div_(sums);
  logits.scatter_add_(1, index, at::empty_like(of_label).fill_(-1));
  return nats;
}

// logits = cap * tanh(logits / cap) in place; gives the slopes.
at::Tensor bend(at::Tensor& logits, double cap) {
  logits.div_(cap).tanh_();
  auto slope = (logits * logits).neg_().add_(1);
  logits.mul_(cap);
  return slope;
}

// The same in one pass over each row, in the type of the logits.
template <class T>
at::Tensor soften_rows(at::Tensor& logits, const at::Tensor& labels) {
  auto nats = at::empty({logits.size(0)}, logits.options().dtype(at::kDouble));
  const auto held = labels.contiguous();
  const fast::CrossEntropyJob<T> job{.logits = static_cast<T*>(logits.data_ptr()),
                                     .labels = held.const_data_ptr<std::int64_t>(),
                                     .nats = nats.data_ptr<double>(),
                                     .width = logits.size(1)};
  at::parallel_for(0, logits.size(0), 1,
                   [&](std::int64_t first, std::int64_t last) { fast::passes<T>().cross_entropy(job, first, last); });
  return nats.sum();
}
at::Tensor soften_fused(at::Tensor& logits, const at::Tensor& labels) {
  return logits.scalar_type() == at::kFloat ? soften_rows<float>(logits, labels)
                                            : soften_rows<fast::Half>(logits, labels);
}

// Rows that make the kernel worth its while on every core; the kernel does not know gradients of the weight.
const fast::HeadKernel* kernel_for(const at::Tensor& hidden, bool weight_grad) {
  constexpr std::int64_t kLeastRows = 32;
  const bool suits = hidden.scalar_type() == at::kBFloat16 && !weight_grad && hidden.size(1) % 16 == 0 &&
                     hidden.size(0) >= kLeastRows * at::get_num_threads();
  return suits ? fast::head_kernel() : nullptr;
}

at::Tensor by_kernel(const fast::HeadKernel& kernel, const at::Tensor& hidden, const at::Tensor& weight,
                     const at::Tensor& labels, at::Tensor& d_hidden) {
  const auto rows = hidden.size(0), dim = hidden.size(1), most = fast::HeadRows::kMostRows;
  const auto h = hidden.contiguous(), w = weight.contiguous(), held = labels.contiguous();
  auto nats = at::empty({rows}, hidden.options().dtype(at::kDouble));
  const auto scratch = at::empty({static_cast<std::int64_t>(at::get_num_threads()), kernel.scratch(dim)},
                                 hidden.options().dtype(at::kFloat));
  fast::shared_out((rows + most - 1) / most, [&](std::int64_t item, int thread) {
    const auto first = item * most;
    kernel.rows({.hidden = static_cast<const fast::Half*>(h.const_data_ptr()) + first * dim,
                 .weight = static_cast<const fast::Half*>(w.const_data_ptr()),
                 .labels = held.const_data_ptr<std::int64_t>() + first,
                 .rows = std::min(most, rows - first),
                 .dim = dim,
                 .vocabulary = w.size(0),
                 .nats = nats.data_ptr<double>() + first,
                 .d_hidden = d_hidden.defined() ? static_cast<fast::Half*>(d_hidden.data_ptr()) + first * dim : nullptr,
                 .scratch = scratch.data_ptr<float>() + thread * scratch.size(1)});
  });
  return nats.sum();
}

class ChunkedCrossEntropy : public torch::autograd::Function<ChunkedCrossEntropy> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& hidden,
                            const at::Tensor& weight, const at::Tensor& labels, std::int64_t chunk_rows,
                            double soft_cap, Kernels kernels) {
    at::NoGradGuard no_grad;
    const bool hidden_grad = hidden.requires_grad(), weight_grad = weight.requires_grad();
    const auto rows = hidden.size(0), vocabulary = weight.size(0);
    const auto transposed = weight.t();
    auto total = at::zeros({}, hidden.options().dtype(at::kDouble));
    auto d_hidden = hidden_grad ? at::empty(hidden.sizes(), hidden.options()) : at::Tensor();
    auto d_weight = weight_grad ? at::zeros(weight.sizes(), weight.options().dtype(at::kFloat)) : at::Tensor();
    const bool fused = kernels == Kernels::Fast && soft_cap == 0 && hidden.is_cpu() &&
                       (hidden.scalar_type() == at::kFloat || hidden.scalar_type() == at::kBFloat16);
    const bool half = hidden.scalar_type() != at::kFloat, widened = half && !fused;
    if (const auto* kernel = fused ? kernel_for(hidden, weight_grad) : nullptr) {
      total = by_kernel(*kernel, hidden, weight, labels, d_hidden);
      context->save_for_backward({d_hidden, d_weight});
      return total.to(at::kFloat);
    }
    // As many chunks as it takes, all of one size: each reads the whole weight, a short last one too.
    const auto chunks = (rows + chunk_rows - 1) / chunk_rows;
    if (chunks > 0) chunk_rows = (rows + chunks - 1) / chunks;
    auto logits_buffer = at::empty({std::min(chunk_rows, rows), vocabulary}, hidden.options());
    auto float_buffer = widened ? at::empty(logits_buffer.sizes(), hidden.options().dtype(at::kFloat)) : logits_buffer;
    for (std::int64_t first = 0; first < rows; first += chunk_rows) {
      const auto count = std::min(chunk_rows, rows - first);
      auto h = hidden.narrow(0, first, count);
      auto logits = logits_buffer.narrow(0, 0, count);
      auto real = float_buffer.narrow(0, 0, count);
      at::mm_out(logits, h, transposed);
      if (widened) real.copy_(logits);
      const auto slope = soft_cap == 0 ? at::Tensor() : bend(real, soft_cap);
      total.add_(fused ? soften_fused(logits, labels.narrow(0, first, count))
                       : soften(real, labels.narrow(0, first, count)));
      if (!hidden_grad && !weight_grad) continue;
      if (slope.defined()) real.mul_(slope);
      if (widened) logits.copy_(real);
      if (hidden_grad) {
        auto part = d_hidden.narrow(0, first, count);
        at::mm_out(part, logits, weight);
      }
      if (!weight_grad) continue;
      if (half)
        d_weight.add_(at::mm(logits.t(), h));
      else
        d_weight.addmm_(logits.t(), h);
    }
    if (weight_grad) d_weight = d_weight.to(weight.scalar_type());
    context->save_for_backward({d_hidden, d_weight});
    return total.to(at::kFloat);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    auto saved = context->get_saved_variables();
    auto scaled = [&](const at::Tensor& gradient) {
      return gradient.defined() ? at::mul(gradient, gradients[0].to(gradient.scalar_type())) : at::Tensor();
    };
    return {scaled(saved[0]), scaled(saved[1]), at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor chunked_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& labels,
                                 std::int64_t chunk_rows, double soft_cap, Kernels kernels) {
  return ChunkedCrossEntropy::apply(hidden, weight, labels, chunk_rows, soft_cap, kernels);
}

}  // namespace hansa::nn
