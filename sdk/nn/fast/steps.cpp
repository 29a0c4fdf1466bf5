// One token more of each row: every product is bound by reading its weights, so they are read once, in their own rows, by all
// cores. What is summed stays in fp32; what the plain form stores in the compute type between two operators is stored so here.
#include <algorithm>

#include <ATen/core/grad_mode.h>
#include <ATen/Parallel.h>

#include "nn/fast/blocks.hpp"
#include "nn/fast/passes.hpp"

namespace hansa::nn::fast {

namespace {

template <class T>
T* data(const at::Tensor& tensor) {
  return static_cast<T*>(tensor.data_ptr());
}

struct Step {
  Buffers& buffers;
  std::int64_t rows;
  at::ScalarType type;

  at::Tensor floats(std::string_view name, std::int64_t count) { return buffers.get(name, {count}, at::kFloat); }

  template <class T>
  float* widened(std::string_view name, const at::Tensor& from) {
    auto to = floats(name, from.numel());
    to.zero_();
    passes<T>().sum_rows({.from = data<T>(from), .stride = 0, .width = from.numel()}, data<float>(to), 0, 1);
    return data<float>(to);
  }
  template <class T>
  void narrowed(const float* from, T* to, std::int64_t count) {
    passes<T>().cast({.from = from, .to = to, .from_stride = 0, .to_stride = 0, .width = count}, 0, 1);
  }

  // y [rows, out] = x [rows, in] Wᵀ of all places beside each other, with their pairs.
  template <class T>
  float* product(std::string_view name, const Joined& joined, const float* x) {
    const auto& places = joined.places();
    const auto in = joined.in(), out = joined.out();
    const auto pairs = joined.pairs();
    auto y = floats(name, rows * out), inner = floats("inner", rows * std::max<std::int64_t>(pairs.columns, 1));
    auto added = floats("added by pairs", rows * out);
    std::vector<at::Tensor> A, B;  // fp32, dense
    for (const auto& pair : pairs.all) {
      A.push_back(pair.A.to(at::kFloat).contiguous());
      B.push_back(pair.B.to(at::kFloat).contiguous());
      passes<float>().vector_product({.weight = data<float>(A.back()),
                                      .x = x,
                                      .y = data<float>(inner) + pair.column * rows,
                                      .weight_stride = in,
                                      .width = in,
                                      .vectors = rows,
                                      .y_stride = pair.rank},
                                     0, pair.rank);
    }
    at::parallel_for(0, out, 64, [&](std::int64_t begin, std::int64_t end) {
      for (std::size_t i = 0; i < places.size(); ++i) {
        const auto row = joined.row(i), first = std::max(begin - row, std::int64_t{0}),
                   last = std::min(end - row, places[i]->module.out);
        if (first >= last) continue;
        passes<T>().vector_product({.weight = data<T>(places[i]->weight),
                                    .x = x,
                                    .y = data<float>(y) + row,
                                    .weight_stride = places[i]->weight.stride(0),
                                    .width = in,
                                    .vectors = rows,
                                    .y_stride = out},
                                   first, last);
      }
      for (std::size_t i = 0; i < pairs.all.size(); ++i) {
        const auto& pair = pairs.all[i];
        const auto first = std::max(begin - pair.row, std::int64_t{0}), last = std::min(end - pair.row, pair.out);
        if (first >= last) continue;
        passes<float>().vector_product({.weight = data<float>(B[i]),
                                        .x = data<float>(inner) + pair.column * rows,
                                        .y = data<float>(added) + pair.row,
                                        .weight_stride = pair.rank,
                                        .width = pair.rank,
                                        .vectors = rows,
                                        .y_stride = out},
                                       first, last);
        const auto scale = static_cast<float>(pair.scale);
        for (std::int64_t v = 0; v < rows; ++v) {
          auto* to = data<float>(y) + v * out + pair.row;
          const auto* from = data<float>(added) + v * out + pair.row;
          for (auto at = first; at < last; ++at) to[at] += scale * from[at];
        }
      }
    });
    return data<float>(y);
  }

  template <class T>
  float* norm(const NormSpec& spec, const Place& place, const at::Tensor& x) {
    const auto width = place.weight.size(0);
    auto out = buffers.get("step normed", {rows, width}, type);
    passes<T>().norm({.x = data<T>(x),
                      .weight = data<T>(place.weight),
                      .out = data<T>(out),
                      .out_stride = width,
                      .width = width,
                      .scale = data<float>(floats("step scale", rows)),
                      .epsilon = spec.epsilon},
                     0, rows);
    return widened<T>("step input", out);
  }

  // x + y in the compute type.
  template <class T>
  at::Tensor sum(std::string_view name, const at::Tensor& x, const float* y) {
    auto added = buffers.get("step added", x.sizes(), type), out = buffers.get(name, x.sizes(), type);
    narrowed(y, data<T>(added), x.numel());
    const auto width = x.size(-1);
    passes<T>().add({.x = data<T>(x), .y = data<T>(added), .out = data<T>(out), .y_stride = width, .width = width}, 0,
                    rows);
    return out;
  }

  // Heads of one row beside each other -> [rows, heads, dim], turned where there is something to turn by.
  template <class T>
  at::Tensor heads(std::string_view name, T* from, std::int64_t stride, std::int64_t count, std::int64_t dim,
                   const Rope::Rows* turn) {
    auto to = buffers.get(name, {rows, 1, count, dim}, type);
    HeadsJob<T> job{.rows = from,
                    .heads = data<T>(to),
                    .row_stride = stride,
                    .head_stride = dim,
                    .count = count,
                    .group = count,
                    .length = 1,
                    .block = 1,
                    .dim = dim};
    at::Tensor cos, sin;
    if (turn) {
      cos = turn->cos.contiguous();
      sin = turn->sin.contiguous();
      job.cos = data<T>(cos);
      job.sin = data<T>(sin);
      job.turned = cos.size(-1);
      job.table_batch_stride = cos.size(0) == 1 ? 0 : job.turned;
    }
    passes<T>().to_heads(job, 0, rows);
    return to;
  }

  // query [rows, 1, query heads, dim]; keys and values [rows, key-value heads, held, dim]; gives [rows, query width].
  template <class T>
  float* attend(const AttentionSpec& spec, const at::Tensor& query, const at::Tensor& keys, const at::Tensor& values) {
    const auto& of = spec.heads;
    const auto held = keys.size(2), low = spec.window ? std::max<std::int64_t>(0, held - *spec.window) : 0;
    const auto seen = held - low, group = of.group(), items = rows * of.key_value;
    const auto* q = widened<T>("step query", query);
    auto scores = floats("step scores", items * group * seen), by_key = floats("step by key", items * group * seen);
    auto log_sums = floats("step log sums", items * group), out = floats("step seen", rows * of.query_width());
    at::parallel_for(0, items, 1, [&](std::int64_t begin, std::int64_t end) {
      for (auto item = begin; item < end; ++item) {
        const auto row = item / of.key_value, head = item % of.key_value;
        const auto at = [&](const at::Tensor& all) {
          return data<T>(all) + row * all.stride(0) + head * all.stride(1) + low * all.stride(2);
        };
        auto* score = data<float>(scores) + item * group * seen;
        auto* turned = data<float>(by_key) + item * group * seen;
        passes<T>().vector_product({.weight = at(keys),
                                    .x = q + item * group * of.dim,
                                    .y = score,
                                    .weight_stride = keys.stride(2),
                                    .width = of.dim,
                                    .vectors = group,
                                    .y_stride = seen},
                                   0, seen);
        const std::int32_t from = 0, to = static_cast<std::int32_t>(seen);
        passes<float>().softmax({.scores = score,
                                 .log_sum = data<float>(log_sums) + item * group,
                                 .low = &from,
                                 .high = &to,
                                 .rows = group,
                                 .queries = 1,
                                 .row_stride = seen,
                                 .keys = seen,
                                 .scale = spec.scale},
                                0, group);
        for (std::int64_t g = 0; g < group; ++g)
          for (std::int64_t key = 0; key < seen; ++key) turned[key * group + g] = score[g * seen + key];
        passes<T>().thin_product({.by = turned,
                                  .x = at(values),
                                  .sum = data<float>(out) + item * group * of.dim,
                                  .x_stride = values.stride(2),
                                  .sum_stride = of.dim,
                                  .rows = seen,
                                  .columns = group},
                                 0, of.dim);
      }
    });
    return data<float>(out);
  }
};

}  // namespace

template <class T>
at::Tensor Block::step(const at::Tensor& x, const BlockOf& of) {
  Step step{workspace_->buffers, of.batch, x.scalar_type()};
  const auto& attention = spec_.attention;
  const auto& heads = attention.heads;
  const auto dim = heads.dim, wide = heads.query_width(), narrow = heads.key_value_width(), all = matrices_.qkv.out();
  const auto* normed = step.norm<T>(spec_.attention_norm, *attention_norm_, x);
  auto projected = step.buffers.get("step projected", {of.batch, all}, step.type);
  step.narrowed(step.product<T>("step qkv", matrices_.qkv, normed), data<T>(projected), projected.numel());
  const auto query = step.heads("step q", data<T>(projected), all, heads.query, dim, of.turn);
  const auto key = step.heads("step k", data<T>(projected) + wide, all, heads.key_value, dim, of.turn);
  const auto value = step.heads("step v", data<T>(projected) + wide + narrow, all, heads.key_value, dim, nullptr);
  const auto [keys, values] = of.cache->extend(of.layer, key, value);
  const auto* seen = step.attend<T>(attention, query, keys, values);
  const auto middle = step.sum<T>("step middle", x, step.product<T>("step output", matrices_.output, seen));

  const auto* second = step.norm<T>(spec_.mlp_norm, *mlp_norm_, middle);
  const auto inner = matrices_.down.in();
  auto gates = step.buffers.get("step gates", {of.batch, 2 * inner}, step.type);
  step.narrowed(step.product<T>("step gate up", matrices_.gate_up, second), data<T>(gates), gates.numel());
  auto act = step.buffers.get("step act", {of.batch, inner}, step.type);
  passes<T>().gate({.gate = data<T>(gates),
                    .up = data<T>(gates) + inner,
                    .act = data<T>(act),
                    .in_stride = 2 * inner,
                    .act_stride = inner,
                    .width = inner,
                    .curve = curve_of(spec_.mlp.activation)},
                   0, of.batch);
  const auto* down = step.product<T>("step down", matrices_.down, step.widened<T>("step act wide", act));
  return step.sum<T>("step out", middle, down).clone();
}

at::Tensor Block::forward_step(const at::Tensor& x, const BlockOf& of) {
  return x.scalar_type() == at::kFloat ? step<float>(x.contiguous(), of) : step<Half>(x.contiguous(), of);
}

}  // namespace hansa::nn::fast
