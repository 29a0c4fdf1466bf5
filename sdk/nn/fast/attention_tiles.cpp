#include "nn/fast/attention_tiles.hpp"

#include <algorithm>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/as_strided.h>
#include <ATen/ops/mm.h>
#include <ATen/Parallel.h>

#include "nn/fast/attention_kernel.hpp"
#include "nn/fast/passes.hpp"
#include "nn/fast/shared_out.hpp"

namespace hansa::nn::fast {

std::int64_t Tiles::block() const {
  // Two tiles of scores are at work at once: so few queries that both (1 MiB of bf16) stay in a core's second-level cache, but
  // not so few that the products become thin.
  constexpr std::int64_t kMost = 128, kLeast = 32, kScores = 256 * 1024;
  auto queries = kMost;
  while (queries > kLeast && queries * heads.group() * length > kScores) queries /= 2;
  return std::min(queries, length);
}

std::int64_t Tiles::slots() const {
  const auto work = batch * heads.key_value, threads = static_cast<std::int64_t>(at::get_num_threads());
  return work >= 4 * threads || threads == 1 ? 1 : std::min<std::int64_t>(tiles(), 2 * threads);
}

namespace {

struct Tile {
  std::int64_t outer = 0, first = 0, queries = 0, rows = 0, keys = 0;  // outer: which row and key-value head
};

Tile tile_at(const Tiles& of, std::int64_t outer, std::int64_t index) {
  const auto first = index * of.block(), queries = std::min(of.block(), of.length - first);
  const auto sequence = of.limits->sequences == 1 ? 0 : outer / of.heads.key_value;
  const auto begin = of.limits->high.begin() + sequence * of.length + first;
  return {outer, first, queries, queries * of.heads.group(), *std::max_element(begin, begin + queries)};
}

at::Tensor matrix(const at::Tensor& of, std::int64_t offset, std::int64_t rows, std::int64_t columns) {
  return of.as_strided({rows, columns}, {columns, 1}, of.storage_offset() + offset);
}
at::Tensor queries_of(const at::Tensor& q, const Tiles& of, const Tile& tile) {
  return matrix(q, (tile.outer * of.length + tile.first) * of.heads.group() * of.heads.dim, tile.rows, of.heads.dim);
}
at::Tensor keys_of(const at::Tensor& k, const Tiles& of, const Tile& tile) {
  return matrix(k, tile.outer * of.length * of.heads.dim, tile.keys, of.heads.dim);
}

template <class T>
SoftmaxJob<T> job_of(const Tiles& of, const Tile& tile, const at::Tensor& scores, float* log_sum) {
  const auto sequence = of.limits->sequences == 1 ? 0 : tile.outer / of.heads.key_value;
  const auto at = sequence * of.length + tile.first;
  return {.scores = static_cast<T*>(scores.data_ptr()),
          .log_sum = log_sum + (tile.outer * of.length + tile.first) * of.heads.group(),
          .low = of.limits->low.data() + at,
          .high = of.limits->high.data() + at,
          .rows = tile.rows,
          .queries = tile.queries,
          .row_stride = tile.keys,
          .d_row_stride = tile.keys,
          .keys = tile.keys,
          .scale = of.scale};
}

template <class T>
void forward_tile(const Tiles& of, const Tile& tile, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                  at::Tensor& out, at::Tensor& log_sum, const at::Tensor& scratch) {
  auto scores = matrix(scratch, 0, tile.rows, tile.keys);
  at::mm_out(scores, queries_of(q, of, tile), keys_of(k, of, tile).t());
  passes<T>().softmax(job_of<T>(of, tile, scores, log_sum.data_ptr<float>()), 0, tile.rows);
  auto seen = queries_of(out, of, tile);
  at::mm_out(seen, scores, keys_of(v, of, tile));
}

// sum += left right; the first time it is set, and what this tile does not see becomes 0.
void add_product(at::Tensor sum, const Tile& tile, bool first, const at::Tensor& left, const at::Tensor& right) {
  auto part = sum.narrow(0, 0, tile.keys);
  if (!first) {
    part.addmm_(left, right);
    return;
  }
  at::mm_out(part, left, right);
  if (tile.keys < sum.size(0)) sum.narrow(0, tile.keys, sum.size(0) - tile.keys).zero_();
}

template <class T>
void backward_tiles(const Tiles& of, std::int64_t outer, std::int64_t slot, const at::Tensor& q, const at::Tensor& k,
                    const at::Tensor& v, const at::Tensor& d_out, const at::Tensor& log_sum,
                    const AttentionGradients& to, const at::Tensor& scratch) {
  const auto dim = of.heads.dim, step = of.slots();
  const auto at = ((slot * of.batch * of.heads.key_value) + outer) * of.length * dim;
  const auto dk = matrix(to.dk, at, of.length, dim), dv = matrix(to.dv, at, of.length, dim);
  bool first = true;
  for (auto index = of.tiles() - 1 - slot; index >= 0; index -= step) {
    auto tile = tile_at(of, outer, index);
    auto p = matrix(scratch, 0, tile.rows, tile.keys), d = matrix(scratch, tile.rows * tile.keys, tile.rows, tile.keys);
    const auto q_tile = queries_of(q, of, tile), d_tile = queries_of(d_out, of, tile);
    at::mm_out(p, q_tile, keys_of(k, of, tile).t());
    at::mm_out(d, d_tile, keys_of(v, of, tile).t());
    auto job = job_of<T>(of, tile, p, log_sum.data_ptr<float>());
    job.d = static_cast<T*>(d.data_ptr());
    passes<T>().softmax_back(job, 0, tile.rows);
    auto dq_tile = queries_of(to.dq, of, tile);
    at::mm_out(dq_tile, d, keys_of(k, of, tile));
    add_product(dv, tile, first, p.t(), d_tile);
    add_product(dk, tile, first, d.t(), q_tile);
    first = false;
  }
  if (!first) return;
  dk.zero_();
  dv.zero_();
}

// ---- by the processor's own kernel

std::int64_t padded(std::int64_t keys) { return (keys + kKeyStep - 1) / kKeyStep * kKeyStep; }
const Half* halves(const at::Tensor& tensor) { return static_cast<const Half*>(tensor.const_data_ptr()); }
Half* halves(at::Tensor& tensor) { return static_cast<Half*>(tensor.data_ptr()); }

const AttentionKernel* kernel_for(const Tiles& of, const at::Tensor& q, Products products) {
  const bool suits = q.scalar_type() == at::kBFloat16 && of.heads.dim % 16 == 0 && products == Products::Best;
  return suits ? attention_kernel() : nullptr;
}

class ByKernel {
 public:
  ByKernel(const AttentionKernel& kernel, const Tiles& of, Buffers& buffers)
      : kernel_(kernel), of_(of), keys_(padded(of.length)), outer_(of.batch * of.heads.key_value), buffers_(buffers) {}

  void forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, at::Tensor& out, at::Tensor& log_sum) {
    pack(k, true, false, v, false, true);
    const auto scratch = scratch_of(0);
    shared_out(outer_ * of_.tiles(), [&](std::int64_t i, int thread) {
      const auto tile = tile_at(of_, i % outer_, of_.tiles() - 1 - i / outer_);
      auto job = job_of(tile, scratch[thread].data_ptr<float>());
      job.out = halves(out);
      by_rows(tile, job, halves(q), nullptr, log_sum.data_ptr<float>(), kernel_.forward);
    });
  }

  void backward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& d_out,
                const at::Tensor& log_sum, const AttentionGradients& to) {
    pack(k, true, true, v, true, false);
    const auto sums = 2 * keys_ * of_.heads.dim, slots = of_.slots(), kept = of_.length * of_.heads.dim;
    const auto scratch = scratch_of(sums);
    shared_out(outer_ * slots, [&](std::int64_t i, int thread) {
      const auto outer = i % outer_, slot = i / outer_;
      auto* mine = scratch[thread].data_ptr<float>();
      std::fill_n(mine, sums, 0.0f);
      for (auto index = of_.tiles() - 1 - slot; index >= 0; index -= slots) {
        const auto tile = tile_at(of_, outer, index);
        auto job = job_of(tile, mine + sums);
        job.dk = mine;
        job.dv = mine + sums / 2;
        job.dq = halves(to.dq);
        by_rows(tile, job, halves(q), halves(d_out), log_sum.data_ptr<float>(), kernel_.backward);
      }
      kernel_.round(mine, halves(to.dk) + (slot * outer_ + outer) * kept, kept);
      kernel_.round(mine + sums / 2, halves(to.dv) + (slot * outer_ + outer) * kept, kept);
    });
  }

 private:
  void pack(const at::Tensor& k, bool k_turned, bool k_pairs, const at::Tensor& v, bool v_turned, bool v_pairs) {
    const auto words = keys_ * of_.heads.dim / 2;
    auto held = buffers_.get("packed keys and values", {4, outer_, words}, at::kInt);
    auto* at = reinterpret_cast<std::uint32_t*>(held.data_ptr<std::int32_t>());
    const auto part = [&](bool wanted) {
      auto* const here = at;
      at += outer_ * words;
      return wanted ? here : nullptr;
    };
    k_ = {part(k_turned), part(k_pairs)};
    v_ = {part(v_turned), part(v_pairs)};
    shared_out(outer_, [&](std::int64_t outer, int) {
      const auto from = outer * of_.length * of_.heads.dim;
      kernel_.pack(halves(k) + from, of_.length, keys_, of_.heads.dim, of_head(k_, outer));
      kernel_.pack(halves(v) + from, of_.length, keys_, of_.heads.dim, of_head(v_, outer));
    });
  }
  Packed of_head(const Packed& all, std::int64_t outer) const {
    const auto from = outer * keys_ * of_.heads.dim / 2;
    return {all.turned ? all.turned + from : nullptr, all.pairs ? all.pairs + from : nullptr};
  }
  at::Tensor scratch_of(std::int64_t more) {
    const auto threads = static_cast<std::int64_t>(at::get_num_threads());
    return buffers_.get("scratch", {threads, kernel_.scratch(keys_, of_.heads.dim) + more}, at::kFloat);
  }
  AttentionRows job_of(const Tile& tile, float* scratch) const {
    AttentionRows job;
    job.k = of_head(k_, tile.outer);
    job.v = of_head(v_, tile.outer);
    job.dim = of_.heads.dim;
    job.keys = keys_;
    job.scale = static_cast<float>(of_.scale);
    job.scratch = scratch;
    return job;
  }
  // A tile's rows, as many at a time as the kernel takes.
  void by_rows(const Tile& tile, AttentionRows job, const Half* q, const Half* d_out, float* log_sum,
               void (*pass)(const AttentionRows&)) const {
    const auto dim = of_.heads.dim, group = of_.heads.group(), start = (tile.outer * of_.length + tile.first) * group;
    const auto sequence = of_.limits->sequences == 1 ? 0 : tile.outer / of_.heads.key_value;
    const auto limits = sequence * of_.length + tile.first;
    const std::int32_t *low[AttentionRows::kMostRows], *high[AttentionRows::kMostRows];
    auto *const out = job.out, *const dq = job.dq;
    for (std::int64_t first = 0; first < tile.rows; first += AttentionRows::kMostRows) {
      job.rows = std::min(AttentionRows::kMostRows, tile.rows - first);
      for (std::int64_t r = 0; r < job.rows; ++r) {
        low[r] = of_.limits->low.data() + limits + (first + r) % tile.queries;
        high[r] = of_.limits->high.data() + limits + (first + r) % tile.queries;
      }
      job.low = low;
      job.high = high;
      const auto at = (start + first) * dim;
      job.q = q + at;
      job.d_out = d_out ? d_out + at : nullptr;
      job.out = out ? out + at : nullptr;
      job.dq = dq ? dq + at : nullptr;
      job.log_sum = log_sum + start + first;
      pass(job);
    }
  }

  const AttentionKernel& kernel_;
  const Tiles& of_;
  std::int64_t keys_, outer_;
  Buffers& buffers_;
  Packed k_, v_;
};

at::Tensor scratch_for_products(const Tiles& of, const at::Tensor& q, Buffers& buffers) {
  return buffers.get("scratch of products",
                     {static_cast<std::int64_t>(at::get_num_threads()), 2 * of.heads.group() * of.block() * of.length},
                     q.scalar_type());
}

}  // namespace

void attend(const Tiles& of, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, at::Tensor& out,
            at::Tensor& log_sum, Buffers& buffers, Products products) {
  if (const auto* kernel = kernel_for(of, q, products)) {
    ByKernel(*kernel, of, buffers).forward(q, k, v, out, log_sum);
    return;
  }
  const auto tiles = of.tiles(), outer = of.batch * of.heads.key_value;
  const bool wide = q.scalar_type() == at::kFloat;
  const auto scratch = scratch_for_products(of, q, buffers);
  shared_out(outer * tiles, [&](std::int64_t i, int thread) {
    const auto tile = tile_at(of, i % outer, tiles - 1 - i / outer);  // the largest first
    if (wide)
      forward_tile<float>(of, tile, q, k, v, out, log_sum, scratch[thread]);
    else
      forward_tile<Half>(of, tile, q, k, v, out, log_sum, scratch[thread]);
  });
}

void attend_back(const Tiles& of, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                 const at::Tensor& d_out, const at::Tensor& log_sum, const AttentionGradients& to, Buffers& buffers,
                 Products products) {
  if (const auto* kernel = kernel_for(of, q, products)) {
    ByKernel(*kernel, of, buffers).backward(q, k, v, d_out, log_sum, to);
    return;
  }
  const auto slots = of.slots(), outer = of.batch * of.heads.key_value;
  const bool wide = q.scalar_type() == at::kFloat;
  const auto scratch = scratch_for_products(of, q, buffers);
  shared_out(outer * slots, [&](std::int64_t i, int thread) {
    if (wide)
      backward_tiles<float>(of, i % outer, i / outer, q, k, v, d_out, log_sum, to, scratch[thread]);
    else
      backward_tiles<Half>(of, i % outer, i / outer, q, k, v, d_out, log_sum, to, scratch[thread]);
  });
}

}  // namespace hansa::nn::fast
