// Attention in tiles against the formula in fp64 and LibTorch's own gradients, by both kinds of products.
#include <cmath>

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/softmax.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>

#include "nn/fast/attention_kernel.hpp"
#include "nn/fast/blocks.hpp"
#include "test.hpp"

using namespace hansa;
using namespace hansa::nn;
using namespace hansa::nn::fast;

namespace {

struct Case {
  std::int64_t batch, group, key_value, length, dim;
  std::optional<std::int64_t> window;
  bool packed = false;  // two documents a row, which do not see each other
};

struct Attended {
  at::Tensor out, dq, dk, dv;  // [batch, heads, length, dim]
};

std::shared_ptr<const Limits> limits(const Case& c) {
  Batch batch{.tokens = at::ones({c.batch, c.length}, at::kLong)};
  if (c.packed) {
    batch.segments = at::ones({c.batch, c.length}, at::kLong);
    for (std::int64_t row = 0; row < c.batch; ++row) batch.segments[row].narrow(0, 0, c.length / (row + 2)).fill_(2);
  }
  AttentionSpec spec;
  spec.window = c.window;
  return limits_of(batch, spec, true);
}

// The mask that the limits describe: 0 where a query sees a key, minus infinity elsewhere.
at::Tensor mask(const Case& c, const Limits& limits) {
  auto mask = at::full({c.batch, 1, c.length, c.length}, -INFINITY, at::kDouble);
  for (std::int64_t row = 0; row < c.batch; ++row)
    for (std::int64_t t = 0; t < c.length; ++t) {
      const auto at = static_cast<std::size_t>((limits.sequences == 1 ? 0 : row) * c.length + t);
      mask[row][0][t].slice(0, limits.low[at], limits.high[at]).fill_(0);
    }
  return mask;
}

// [batch, heads, length, dim] in the blocks of queries that tiles are made of, and back.
at::Tensor in_blocks(const at::Tensor& heads, const Case& c, std::int64_t block, bool back) {
  const auto outer = c.batch * c.key_value;
  auto result = at::empty_like(heads);
  const auto logical = (back ? result : heads).view({outer, c.group, c.length, c.dim});
  const auto blocked = (back ? heads : result).view({outer, c.group * c.length, c.dim});
  for (std::int64_t first = 0; first < c.length; first += block) {
    const auto queries = std::min(block, c.length - first);
    auto here = blocked.narrow(1, first * c.group, queries * c.group).view({outer, c.group, queries, c.dim});
    auto there = logical.narrow(2, first, queries);
    back ? there.copy_(here) : here.copy_(there);
  }
  return result;
}

Attended in_tiles(const Case& c, const Limits& limits, const std::vector<at::Tensor>& qkvd, Products products) {
  const Heads heads{.query = c.group * c.key_value, .key_value = c.key_value, .dim = c.dim};
  const Tiles tiles{heads, 1 / std::sqrt(static_cast<double>(c.dim)), c.batch, c.length, &limits};
  const auto outer = c.batch * c.key_value;
  const auto block = tiles.block();
  const auto q = in_blocks(qkvd[0], c, block, false).view({outer, c.group * c.length, c.dim});
  const auto k = qkvd[1].view({outer, c.length, c.dim}), v = qkvd[2].view({outer, c.length, c.dim});
  const auto d_out = in_blocks(qkvd[3], c, block, false).view({outer, c.group * c.length, c.dim});
  auto out = at::empty_like(q), dq = at::empty_like(q);
  auto log_sum = at::empty({outer, c.group * c.length}, at::kFloat);
  auto dk = at::empty({tiles.slots(), outer, c.length, c.dim}, q.options()), dv = at::empty_like(dk);
  Buffers buffers;
  attend(tiles, q, k, v, out, log_sum, buffers, products);
  attend_back(tiles, q, k, v, d_out, log_sum, {dq, dk, dv}, buffers, products);
  const auto sum = [&](const at::Tensor& parts) {
    return parts.to(at::kFloat).sum(0).view({c.batch, c.key_value, c.length, c.dim});
  };
  return {in_blocks(out.view(qkvd[0].sizes()), c, block, true), in_blocks(dq.view(qkvd[0].sizes()), c, block, true),
          sum(dk), sum(dv)};
}

Attended by_formula(const Case& c, const Limits& limits, const std::vector<at::Tensor>& qkvd) {
  std::vector<at::Tensor> wide;
  for (std::size_t i = 0; i < 3; ++i) wide.push_back(qkvd[i].to(at::kDouble).requires_grad_());
  const auto grouped = [&](const at::Tensor& held) { return held.repeat_interleave(c.group, 1); };
  const auto scores = at::matmul(wide[0], grouped(wide[1]).transpose(2, 3)) / std::sqrt(static_cast<double>(c.dim));
  const auto out = at::matmul(at::softmax(scores + mask(c, limits), -1), grouped(wide[2]));
  out.backward(qkvd[3].to(at::kDouble));
  return {out.detach(), wide[0].grad(), wide[1].grad(), wide[2].grad()};
}

// Of one key alone the scores' gradients are 0: then what is off is measured by a small part of the output's gradient.
double off(const at::Tensor& found, const at::Tensor& want, const at::Tensor& d_out) {
  const auto wide = found.to(at::kDouble);
  return ((wide - want).norm() / (want.norm() + 1e-2 * d_out.norm())).item<double>();
}

}  // namespace

TEST_CASE("attention in tiles is the formula, and its gradients are LibTorch's") {
  const std::vector<Case> cases{{1, 1, 1, 1, 16, {}},   {2, 1, 2, 5, 16, {}},          {1, 3, 1, 64, 64, {}},
                                {2, 3, 2, 100, 64, {}}, {1, 2, 3, 300, 80, {}},        {3, 4, 1, 33, 48, {}, true},
                                {2, 3, 1, 200, 64, 37}, {2, 2, 2, 150, 128, {}, true}, {1, 1, 2, 65, 16, 3},
                                {1, 3, 1, 700, 64, {}}};
  for (const auto& c : cases) {
    INFO(c.batch << " x " << c.key_value << " x " << c.group << ", " << c.length << " of " << c.dim);
    const auto bounds = limits(c);
    std::vector<at::Tensor> qkvd;
    for (const auto heads : {c.group * c.key_value, c.key_value, c.key_value, c.group * c.key_value})
      qkvd.push_back(at::randn({c.batch, heads, c.length, c.dim}, make_generator(7 + qkvd.size()), at::kFloat));
    for (const auto type : {at::kFloat, at::kBFloat16}) {
      std::vector<at::Tensor> given;
      for (const auto& one : qkvd) given.push_back(one.to(type));
      const auto want = by_formula(c, *bounds, given);
      for (const auto products : {Products::Best, Products::LibTorch}) {
        const auto found = in_tiles(c, *bounds, given, products);
        const double tolerance = type == at::kFloat ? 1e-5 : products == Products::Best ? 5e-3 : 8e-3;
        INFO((type == at::kFloat ? "fp32" : "bf16")
             << (products == Products::Best ? ", best" : ", LibTorch's products"));
        CHECK(off(found.out, want.out, given[3]) < tolerance);
        CHECK(off(found.dq, want.dq, given[3]) < tolerance);  // of one key all gradients of scores are 0
        CHECK(off(found.dk, want.dk, given[3]) < tolerance);
        CHECK(off(found.dv, want.dv, given[3]) < tolerance);
      }
    }
  }
}
