// What distillation minimises (arXiv 1503.02531). Training thread only.
#pragma once
#include <ATen/core/Tensor.h>

namespace hansa::distill {

struct Mixture {
  double temperature = 2, weight = 0.5;  // weight: of the teacher's share
};
struct Losses {
  at::Tensor sum;             // fp32 scalar, with the graph of the student's logits
  double hard = 0, soft = 0;  // sums: nats of the labels; the divergence KL(teacher || student) at the temperature
};
// Sum over rows of (1 - weight) times the label's nats plus weight T² KL(softmax(teacher / T) || softmax(student / T)), which
// the paper scales by T² so that its gradient does not shrink with T. Logits fp32 [rows, vocabulary], labels i64 [rows]. The
// gradient is found in the same pass, chunk by chunk.
Losses mixed_loss(const at::Tensor& student, const at::Tensor& teacher, const at::Tensor& labels, const Mixture&);

}  // namespace hansa::distill
