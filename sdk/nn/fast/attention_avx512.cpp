#include <immintrin.h>

#include "nn/fast/attention_kernel.hpp"

namespace hansa::nn::fast {
namespace {
constexpr int kLanes = 16;
#include "products_avx512.inc"

static_assert(kKeyStep == kPanel);

void pack(const Half* matrix, Index count, Index keys, Index dim, const Packed& to) {
  if (to.pairs) {
    pair_rows(matrix, count, dim, to.pairs, dim);
    const Index done = (count + 1) / 2 * dim;
    __builtin_memset(to.pairs + done, 0, sizeof(Word) * static_cast<std::size_t>(keys / 2 * dim - done));
  }
  if (to.turned) turn_rows(matrix, count, dim, keys, to.turned);
}

struct Span {  // of keys that any row sees, in steps of kKeyStep
  Index first, last;
  Index size() const { return last - first; }
};
inline Span span_of(const AttentionRows& job) {
  Index first = job.keys, last = 0;
  for (Index r = 0; r < job.rows; ++r) {
    first = *job.low[r] < first ? *job.low[r] : first;
    last = *job.high[r] > last ? *job.high[r] : last;
  }
  first = first / kKeyStep * kKeyStep;
  return {first, last <= first ? first : (last + kKeyStep - 1) / kKeyStep * kKeyStep};
}

// rows · turnedᵀ over the span
inline void scores(const AttentionRows& job, const Half* rows, Index count, const Word* turned, Span span, float* to) {
  const Index panel = job.dim / 2 * kPanel;
  product({words(rows), job.dim / 2, 1}, {turned + span.first / kPanel * panel, kPanel, panel}, {to, span.size()},
          count, span.size(), job.dim / 2, false);
}

// What row r of the job sees, in columns of the span.
struct Seen {
  Index low, high;
  Index first() const { return low / kLanes * kLanes; }
  Index last() const { return (high + kLanes - 1) / kLanes * kLanes; }
  struct Some {  // of the lanes
    __mmask16 mask;
    F only(F x, float rest) const { return (F)_mm512_mask_mov_ps((__m512)all(rest), mask, (__m512)x); }
  };
  struct All {
    F only(F x, float) const { return x; }
  };
  template <class Body>
  void each(Body body) const {
    for (Index i = first(); i < last(); i += kLanes) {
      const Index from = low - i, to = high - i;
      if (from <= 0 && to >= kLanes) {
        body(i, All{});
        continue;
      }
      const std::uint32_t above = from <= 0 ? 0xFFFFu : 0xFFFFu << from,
                          below = to >= kLanes ? 0xFFFFu : (1u << to) - 1;
      body(i, Some{static_cast<__mmask16>(above & below)});
    }
  }
};
inline Seen seen_by(const AttentionRows& job, Index row, Span span) {
  return {*job.low[row] - span.first, *job.high[row] - span.first};
}

void round_all(const float* from, Half* to, Index count) {
  each(count, [&](Index i, auto n) { store(to + i, load(from + i, n), n); });
}

// So many rows at once that their scores stay in the second-level cache.
constexpr Index kAtOnce = 32;

void forward(const AttentionRows& job) {
  const Span span = span_of(job);
  const Index width = span.size();
  float* s = job.scratch;
  auto* p = reinterpret_cast<Half*>(s + kAtOnce * width);  // e^(s - top), rounded
  float* sum = reinterpret_cast<float*>(p + kAtOnce * width);
  float parts[kAtOnce];
  const float scale = job.scale * kLog2E;  // in powers of two
  for (Index begin = 0; begin < job.rows; begin += kAtOnce) {
    const Index rows = job.rows - begin < kAtOnce ? job.rows - begin : kAtOnce;
    scores(job, job.q + begin * job.dim, rows, job.k.turned, span, s);
    for (Index r = 0; r < rows; ++r) {
      const Seen seen = seen_by(job, begin + r, span);
      const float* row = s + r * width;
      Half* to = p + r * width;
      F most = all(-3.4e38f), sums{};
      seen.each(
          [&](Index i, auto visible) { most = greater(most, visible.only(load(row + i, Full{}) * scale, -3.4e38f)); });
      const float top = largest(most);
      seen.each([&](Index i, auto visible) {
        const F e = visible.only(power_of_two(load(row + i, Full{}) * scale - top), 0);
        sums += e;
        store(to + i, e, Full{});
      });
      clear(to, seen.first());
      clear(to + seen.last(), width - seen.last());
      const float sum_of_row = total(sums);
      job.log_sum[begin + r] = top * kLogOf2 + __builtin_logf(sum_of_row);
      parts[r] = 1.0f / sum_of_row;
    }
    product({words(p), width / 2, 1}, {job.v.pairs + span.first / 2 * job.dim, job.dim}, {sum, job.dim}, rows, job.dim,
            width / 2, false);
    for (Index r = 0; r < rows; ++r)
      each(job.dim, [&](Index i, auto n) {
        store(job.out + (begin + r) * job.dim + i, load(sum + r * job.dim + i, n) * parts[r], n);
      });
  }
}

// Probabilities of a row and the gradients of its products, from scores and the gradients of probabilities.
struct Slopes {
  const AttentionRows& job;
  Span span;

  // The scores become probabilities; gives the average of their gradients.
  float chances(Index row, float* p, const float* d) const {
    const Seen seen = seen_by(job, row, span);
    const float scale = job.scale * kLog2E, log_sum = job.log_sum[row] * kLog2E;
    F along{};
    seen.each([&](Index i, auto visible) {
      const F probability = visible.only(power_of_two(load(p + i, Full{}) * scale - log_sum), 0);
      store(p + i, probability, Full{});
      along += probability * load(d + i, Full{});
    });
    clear(p, seen.first());
    clear(p + seen.last(), span.size() - seen.last());
    return total(along);
  }

  // Two rows of p and d, from `row` of the job on; the second may be beyond the last.
  void two(Index row, float* p, float* d, Word* p_pairs, Word* slope_pairs, Half* slopes) const {
    const Index width = span.size();
    const float upper_level = chances(row, p, d);
    float lower_level = 0;
    if (row + 1 < job.rows) {
      lower_level = chances(row + 1, p + width, d + width);
    } else {
      clear(p + width, width);
      clear(d + width, width);
    }
    for (Index i = 0; i < width; i += kLanes) {
      const F upper = load(p + i, Full{}), lower = load(p + width + i, Full{});
      Rounded(upper, lower).store_words(p_pairs + i);
      const Rounded both(upper * (load(d + i, Full{}) - upper_level) * job.scale,
                         lower * (load(d + width + i, Full{}) - lower_level) * job.scale);
      both.store_words(slope_pairs + i);
      both.store_rows(slopes + i, slopes + width + i);
    }
  }
};

void backward(const AttentionRows& job) {
  constexpr Index most = AttentionRows::kMostRows;
  const Span span = span_of(job);
  const Index width = span.size(), pair_width = width + kApart;
  float *p = job.scratch, *d = p + kAtOnce * width;
  auto* slopes = reinterpret_cast<Half*>(d + kAtOnce * width);            // by row: the gradient of the products
  auto* slope_pairs = reinterpret_cast<Word*>(slopes + kAtOnce * width);  // the same, two rows a word
  Word* p_pairs = slope_pairs + most / 2 * pair_width;
  Word* q_pairs = p_pairs + most / 2 * pair_width;
  Word* d_pairs = q_pairs + most / 2 * job.dim;
  float* dq = reinterpret_cast<float*>(d_pairs + most / 2 * job.dim);
  for (Index begin = 0; begin < job.rows; begin += kAtOnce) {
    const Index rows = job.rows - begin < kAtOnce ? job.rows - begin : kAtOnce;
    scores(job, job.q + begin * job.dim, rows, job.k.turned, span, p);
    scores(job, job.d_out + begin * job.dim, rows, job.v.turned, span, d);
    for (Index r = 0; r < rows; r += 2) {
      const Index pair = (begin + r) / 2 * pair_width;
      Slopes{job, span}.two(begin + r, p + r * width, d + r * width, p_pairs + pair, slope_pairs + pair,
                            slopes + r * width);
    }
    product({words(slopes), width / 2, 1}, {job.k.pairs + span.first / 2 * job.dim, job.dim}, {dq, job.dim}, rows,
            job.dim, width / 2, false);
    round_all(dq, job.dq + begin * job.dim, rows * job.dim);
  }
  pair_rows(job.q, job.rows, job.dim, q_pairs, job.dim);
  pair_rows(job.d_out, job.rows, job.dim, d_pairs, job.dim);
  const Index steps = (job.rows + 1) / 2;
  product({p_pairs, 1, pair_width}, {d_pairs, job.dim}, {job.dv + span.first * job.dim, job.dim}, width, job.dim, steps,
          true);
  product({slope_pairs, 1, pair_width}, {q_pairs, job.dim}, {job.dk + span.first * job.dim, job.dim}, width, job.dim,
          steps, true);
}

// What backward lays out; forward needs less.
Index scratch(Index keys, Index dim) {
  constexpr Index most = AttentionRows::kMostRows;
  return 2 * kAtOnce * keys + kAtOnce * keys / 2 + 2 * (most / 2) * (keys + kApart) + 2 * (most / 2) * dim +
         kAtOnce * dim;
}

}  // namespace

const AttentionKernel kAvx512Attention{pack, forward, backward, round_all, scratch};

}  // namespace hansa::nn::fast
