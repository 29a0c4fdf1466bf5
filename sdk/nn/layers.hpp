// Layers as functions of a Place. Each honours the injection of its place; gradients reach injected tensors only, in their
// own type (fp32 masters are cast on use). x is in the compute type (fp32 or bf16), on the CPU. Training thread only.
#pragma once
#include "nn/dropout.hpp"
#include "nn/places.hpp"

namespace hansa::nn {

at::Tensor linear(const Place&, const at::Tensor& x, Dropout&);                     // [..., in] -> [..., out]
at::Tensor embedding(const Place&, const at::Tensor& ids, at::ScalarType compute);  // i64 [...] -> [..., out]
at::Tensor rms_norm(const Place&, const at::Tensor& x, double epsilon);  // normalised in fp32, cast, times weight
at::Tensor rms_norm_plus_one(const Place&, const at::Tensor& x, double epsilon);  // times 1 + weight in fp32, then cast
at::Tensor layer_norm(const Place&, const at::Tensor& x, double epsilon);
at::Tensor layer_norm(const at::Tensor& x, double epsilon);  // without weight and bias

// Sum over rows of -log softmax(head(hidden))[label], fp32 scalar; rows whose label is -100 count nothing. Never holds more
// than a chunk of the logits; the gradient is found in the forward pass. soft_cap: logits become cap * tanh(logit / cap).
at::Tensor head_loss(const Place& head, const at::Tensor& hidden, const at::Tensor& labels, Dropout&,
                     double soft_cap = 0, Kernels = Kernels::Fast);

// The same label by label: fp32 in the shape of the labels, 0 where none is counted. The backward pass computes the chunks again.
at::Tensor head_label_losses(const Place& head, const at::Tensor& hidden, const at::Tensor& labels, Dropout&,
                             double soft_cap = 0);

}  // namespace hansa::nn
