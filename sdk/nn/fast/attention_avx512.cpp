#include <immintrin.h>

#include "nn/fast/attention_kernel.hpp"

namespace hansa::nn::fast {
namespace {
constexpr int kLanes = 16;
#include "passes.inc"

using Word = std::uint32_t;

struct Left {  // words: element (row, step) of the first factor
  const Word* at;
  Index row, step;
};
struct Right {  // words: a step is a row of columns next to each other
  const Word* at;
  Index step;
};
struct Sum {
  float* at;
  Index row;
};

template <int kRows, int kVectors>
inline void block(Left left, Right right, Sum sum, Index steps, bool add) {
  __m512 sums[kRows][kVectors];
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kVectors; ++v)
      sums[r][v] = add ? _mm512_loadu_ps(sum.at + r * sum.row + v * kLanes) : _mm512_setzero_ps();
  for (Index step = 0; step < steps; ++step) {
    __m512i columns[kVectors];
    for (int v = 0; v < kVectors; ++v) columns[v] = _mm512_loadu_si512(right.at + step * right.step + v * kLanes);
    for (int r = 0; r < kRows; ++r) {
      const __m512i one = _mm512_set1_epi32(static_cast<int>(left.at[r * left.row + step * left.step]));
      for (int v = 0; v < kVectors; ++v) sums[r][v] = _mm512_dpbf16_ps(sums[r][v], (__m512bh)one, (__m512bh)columns[v]);
    }
  }
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kVectors; ++v) _mm512_storeu_ps(sum.at + r * sum.row + v * kLanes, sums[r][v]);
}

template <int kVectors>
inline void strip(Left left, Right right, Sum sum, Index rows, Index steps, bool add) {
  Index r = 0;
  for (; r + 6 <= rows; r += 6)
    block<6, kVectors>({left.at + r * left.row, left.row, left.step}, right, {sum.at + r * sum.row, sum.row}, steps,
                       add);
  for (; r + 2 <= rows; r += 2)
    block<2, kVectors>({left.at + r * left.row, left.row, left.step}, right, {sum.at + r * sum.row, sum.row}, steps,
                       add);
  for (; r < rows; ++r)
    block<1, kVectors>({left.at + r * left.row, left.row, left.step}, right, {sum.at + r * sum.row, sum.row}, steps,
                       add);
}

// sum (+)= left right, over pairs; columns in multiples of kLanes. So many steps at once that a strip of the second factor
// stays in the first-level cache.
inline void product(Left left, Right right, Sum sum, Index rows, Index columns, Index steps, bool add) {
  constexpr Index kSteps = 64;
  for (Index done = 0; done < steps; done += kSteps) {
    const Index now = steps - done < kSteps ? steps - done : kSteps;
    const Left from{left.at + done * left.step, left.row, left.step};
    for (Index column = 0; column < columns; column += 4 * kLanes) {
      const Right of{right.at + done * right.step + column, right.step};
      const Sum to{sum.at + column, sum.row};
      const bool onto = add || done > 0;
      switch ((columns - column) / kLanes) {
        case 1: strip<1>(from, of, to, rows, now, onto); break;
        case 2: strip<2>(from, of, to, rows, now, onto); break;
        case 3: strip<3>(from, of, to, rows, now, onto); break;
        default: strip<4>(from, of, to, rows, now, onto);
      }
    }
  }
}

inline U bits_of(const Half* from) {
  H h;
  __builtin_memcpy(&h, from, sizeof h);
  return __builtin_convertvector(h, U);
}
// Two rows as words [width], the upper one in the lower half.
inline void pair(const Half* upper, const Half* lower, Word* to, Index width) {
  for (Index i = 0; i < width; i += kLanes) {
    U both = bits_of(upper + i);
    if (lower) both |= bits_of(lower + i) << 16;
    __builtin_memcpy(to + i, &both, sizeof both);
  }
}
inline void pair_rows(const Half* matrix, Index rows, Index dim, Word* to) {
  for (Index row = 0; row < rows; row += 2)
    pair(matrix + row * dim, row + 1 < rows ? matrix + (row + 1) * dim : nullptr, to + row / 2 * dim, dim);
}

void pack(const Half* matrix, Index count, Index keys, Index dim, const Packed& to) {
  if (to.pairs) {
    pair_rows(matrix, count, dim, to.pairs);
    const Index done = (count + 1) / 2 * dim;
    __builtin_memset(to.pairs + done, 0, sizeof(Word) * static_cast<std::size_t>(keys / 2 * dim - done));
  }
  if (!to.turned) return;
  for (Index p = 0; p < dim / 2; ++p) {
    Word* row = to.turned + p * keys;
    for (Index key = 0; key < count; ++key) __builtin_memcpy(row + key, matrix + key * dim + 2 * p, sizeof(Word));
    __builtin_memset(row + count, 0, sizeof(Word) * static_cast<std::size_t>(keys - count));
  }
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
inline const Word* words(const Half* from) { return reinterpret_cast<const Word*>(from); }

// first · turnedᵀ over the span
inline void scores(const AttentionRows& job, const Half* first, const Word* turned, Span span, float* to) {
  product({words(first), job.dim / 2, 1}, {turned + span.first, job.keys}, {to, span.size()}, job.rows, span.size(),
          job.dim / 2, false);
}

// What row r of the job sees, in columns of the span.
struct Seen {
  Index low, high;
  Index first() const { return low / kLanes * kLanes; }
  Index last() const { return (high + kLanes - 1) / kLanes * kLanes; }
  // x where the row sees the columns from i on, elsewhere `rest`.
  F only(Index i, F x, float rest) const {
    const Index from = low - i, to = high - i;
    const std::uint32_t above = from <= 0 ? 0xFFFFu : 0xFFFFu << from, below = to >= kLanes ? 0xFFFFu : (1u << to) - 1;
    return (F)_mm512_mask_mov_ps((__m512)all(rest), static_cast<__mmask16>(above & below), (__m512)x);
  }
  template <class Body>
  void each(Body body) const {
    for (Index i = first(); i < last(); i += kLanes) body(i);
  }
  void clear_rest(Half* row, Index width) const {
    clear(row, first());
    clear(row + last(), width - last());
  }
};
inline Seen seen_by(const AttentionRows& job, Index row, Span span) {
  return {*job.low[row] - span.first, *job.high[row] - span.first};
}

void round_all(const float* from, Half* to, Index count) {
  each(count, [&](Index i, auto n) { store(to + i, load(from + i, n), n); });
}

void forward(const AttentionRows& job) {
  const Span span = span_of(job);
  const Index width = span.size();
  float* s = job.scratch;
  auto* p = reinterpret_cast<Half*>(s + AttentionRows::kMostRows * width);  // e^(s - top), rounded
  float* sum = reinterpret_cast<float*>(p + AttentionRows::kMostRows * width);
  float parts[AttentionRows::kMostRows];
  scores(job, job.q, job.k.turned, span, s);
  for (Index r = 0; r < job.rows; ++r) {
    const Seen seen = seen_by(job, r, span);
    const float* row = s + r * width;
    F most = all(-3.4e38f), sums{};
    seen.each([&](Index i) { most = greater(most, seen.only(i, load(row + i, Full{}) * job.scale, -3.4e38f)); });
    const float top = largest(most);
    seen.each([&](Index i) {
      const F e = seen.only(i, exponential(load(row + i, Full{}) * job.scale - top), 0);
      sums += e;
      store(p + r * width + i, e, Full{});
    });
    seen.clear_rest(p + r * width, width);
    job.log_sum[r] = top + __builtin_logf(total(sums));
    parts[r] = 1.0f / total(sums);
  }
  product({words(p), width / 2, 1}, {job.v.pairs + span.first / 2 * job.dim, job.dim}, {sum, job.dim}, job.rows,
          job.dim, width / 2, false);
  for (Index r = 0; r < job.rows; ++r)
    each(job.dim,
         [&](Index i, auto n) { store(job.out + r * job.dim + i, load(sum + r * job.dim + i, n) * parts[r], n); });
}

void backward(const AttentionRows& job) {
  const Span span = span_of(job);
  const Index width = span.size(), most = AttentionRows::kMostRows;
  float *p = job.scratch, *d = p + most * width;
  auto* slopes = reinterpret_cast<Half*>(d + most * width);            // by row: the gradient of the products
  auto* slope_pairs = reinterpret_cast<Word*>(slopes + most * width);  // the same, two rows a word
  Word* p_pairs = slope_pairs + most / 2 * width;
  Word* q_pairs = p_pairs + most / 2 * width;
  Word* d_pairs = q_pairs + most / 2 * job.dim;
  float* dq = reinterpret_cast<float*>(d_pairs + most / 2 * job.dim);
  auto* rounded = reinterpret_cast<Half*>(dq + most * job.dim);  // two rows of probabilities
  scores(job, job.q, job.k.turned, span, p);
  scores(job, job.d_out, job.v.turned, span, d);
  for (Index r = 0; r < job.rows; ++r) {
    const Seen seen = seen_by(job, r, span);
    float *p_row = p + r * width, *d_row = d + r * width;
    F along{};
    seen.each([&](Index i) {
      const F probability = seen.only(i, exponential(load(p_row + i, Full{}) * job.scale - job.log_sum[r]), 0);
      store(p_row + i, probability, Full{});
      along += probability * load(d_row + i, Full{});
    });
    const float level = total(along);
    Half *slope = slopes + r * width, *chance = rounded + r % 2 * width;
    seen.each([&](Index i) {
      const F probability = load(p_row + i, Full{});
      store(chance + i, probability, Full{});
      store(slope + i, probability * (load(d_row + i, Full{}) - level) * job.scale, Full{});
    });
    seen.clear_rest(slope, width);
    seen.clear_rest(chance, width);
    if (r % 2 == 0 && r + 1 < job.rows) continue;
    const Index upper = r - r % 2;
    const bool two = r % 2 == 1;
    pair(rounded, two ? rounded + width : nullptr, p_pairs + upper / 2 * width, width);
    pair(slopes + upper * width, two ? slope : nullptr, slope_pairs + upper / 2 * width, width);
  }
  product({words(slopes), width / 2, 1}, {job.k.pairs + span.first / 2 * job.dim, job.dim}, {dq, job.dim}, job.rows,
          job.dim, width / 2, false);
  round_all(dq, job.dq, job.rows * job.dim);
  pair_rows(job.q, job.rows, job.dim, q_pairs);
  pair_rows(job.d_out, job.rows, job.dim, d_pairs);
  const Index steps = (job.rows + 1) / 2;
  product({p_pairs, 1, width}, {d_pairs, job.dim}, {job.dv + span.first * job.dim, job.dim}, width, job.dim, steps,
          true);
  product({slope_pairs, 1, width}, {q_pairs, job.dim}, {job.dk + span.first * job.dim, job.dim}, width, job.dim, steps,
          true);
}

}  // namespace

const AttentionKernel kAvx512Attention{pack, forward, backward, round_all};

}  // namespace hansa::nn::fast
