#include <immintrin.h>

#include "nn/fast/head_kernel.hpp"

namespace hansa::nn::fast {
namespace {
constexpr int kLanes = 16;
#include "products_avx512.inc"

// Words of the vocabulary at once: whole sixes, and with their pairs they fit the second-level cache. So many of them between two
// looks ahead.
constexpr Index kBlock = 96, kStrip = 24;
static_assert(HeadRows::kMostRows == kPanel);

// Rows of the job are lanes: what a lane has seen so far of its row.
struct Running {
  float* sums;        // [kPanel, dim + kApart]: of e^(logit - top) weight
  float top[kPanel];  // in powers of two, as the exponents are
  double total[kPanel];
};

// A lane's maximum grew: what was summed below the old one is taken to the new one.
void raise(Running& running, Index row, float to, Index dim) {
  const float factor = power_of_two(all(running.top[row] - to))[0];
  float* sums = running.sums + row * (dim + kApart);
  each(dim, [&](Index i, auto n) { store(sums + i, load(sums + i, n) * factor, n); });
  running.total[row] *= factor;
  running.top[row] = to;
}

// Logits [count, kPanel] become e^(logit - top) by pairs of words [(count + 1) / 2, kPanel].
void exponents(const float* logits, Index count, Index rows, Index dim, Running& running, Word* to) {
  for (Index lane = 0; lane < rows; lane += kLanes) {
    F most = load(logits + lane, Full{});
    for (Index v = 1; v < count; ++v) most = greater(load(logits + v * kPanel + lane, Full{}), most);
    most *= kLog2E;
    for (Index i = 0; i < kLanes; ++i)
      if (most[i] > running.top[lane + i]) raise(running, lane + i, most[i], dim);
    const F top = load(running.top + lane, Full{});
    F sum{};
    for (Index v = 0; v < count; v += 2) {
      const float* at = logits + v * kPanel + lane;
      const F first = power_of_two(load(at, Full{}) * kLog2E - top);
      const F second = v + 1 < count ? power_of_two(load(at + kPanel, Full{}) * kLog2E - top) : F{};
      sum += first + second;
      Rounded(first, second).store_words(to + v / 2 * kPanel + lane);
    }
    for (Index i = 0; i < kLanes; ++i) running.total[lane + i] += static_cast<double>(sum[i]);
  }
}

void head_rows(const HeadRows& job) {
  const Index dim = job.dim, apart = dim + kApart, lanes = (job.rows + kLanes - 1) / kLanes * kLanes;
  Word* turned = reinterpret_cast<Word*>(job.scratch);
  float* logits = job.scratch + dim / 2 * kPanel;
  Word* chances = reinterpret_cast<Word*>(logits + kBlock * kPanel);
  Word* pairs = chances + kBlock / 2 * kPanel;
  Running running{reinterpret_cast<float*>(pairs + kBlock / 2 * apart), {}, {}};
  float of_label[kPanel] = {};
  turn_rows(job.hidden, job.rows, dim, kPanel, turned);
  clear(running.sums, kPanel * apart);
  for (float& top : running.top) top = -3.4e38f;
  for (Index first = 0; first < job.vocabulary; first += kBlock) {
    const Index count = job.vocabulary - first < kBlock ? job.vocabulary - first : kBlock;
    const Half* weight = job.weight + first * dim;
    if (job.d_hidden)
      pair_rows(weight, count, dim, pairs, apart);  // from front to back, which brings them into the cache
    for (Index v = 0; v < count; v += kStrip) {
      const Index now = count - v < kStrip ? count - v : kStrip, ahead = first + kBlock + v;
      // The next block's words come from memory meanwhile.
      if (ahead + kStrip <= job.vocabulary)
        for (Index i = 0; i < kStrip * dim; i += 32) _mm_prefetch(job.weight + ahead * dim + i, _MM_HINT_T1);
      product({words(weight + v * dim), dim / 2, 1}, {turned, kPanel}, {logits + v * kPanel, kPanel}, now, lanes,
              dim / 2, false);
    }
    for (Index r = 0; r < job.rows; ++r) {
      const Index label = job.labels[r] - first;
      if (label >= 0 && label < count) of_label[r] = logits[label * kPanel + r];
    }
    exponents(logits, count, job.rows, dim, running, chances);
    if (!job.d_hidden) continue;
    product({chances, 1, kPanel}, {pairs, apart}, {running.sums, apart}, job.rows, dim, (count + 1) / 2, true);
  }
  for (Index r = 0; r < job.rows; ++r) {
    job.nats[r] = __builtin_log(running.total[r]) + static_cast<double>(running.top[r]) * 0.693147180559945309 -
                  static_cast<double>(of_label[r]);
    if (!job.d_hidden) continue;
    const float part = static_cast<float>(1 / running.total[r]);
    const Half* of = job.weight + job.labels[r] * dim;
    const float* sums = running.sums + r * apart;
    each(dim,
         [&](Index i, auto n) { store(job.d_hidden + r * dim + i, load(sums + i, n) * part - load(of + i, n), n); });
  }
}

Index head_scratch(Index dim) {
  return dim / 2 * kPanel + kBlock * kPanel + kBlock / 2 * kPanel + (kBlock / 2 + kPanel) * (dim + kApart);
}

}  // namespace

const HeadKernel kAvx512Head{head_rows, head_scratch};

}  // namespace hansa::nn::fast
