// Every pass in every build that this machine can run, against the definition in double precision.
#include "nn/fast/passes.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "test.hpp"

using namespace hansa::nn::fast;

namespace {

using Count = std::int64_t;
using Doubles = std::vector<double>;

double number(float x) { return x; }
double number(Half x) { return std::bit_cast<float>(std::uint32_t{x} << 16); }
float rounded(float x, float) { return x; }
Half rounded(float x, Half) {  // to the nearest, ties to even
  const auto bits = std::bit_cast<std::uint32_t>(x);
  return static_cast<Half>((bits + (((bits >> 16) & 1) + 0x7FFFu)) >> 16);
}

template <class T>
std::vector<T> normal(Count count, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> of(0, 1);
  std::vector<T> all(static_cast<std::size_t>(count));
  for (auto& x : all) x = rounded(of(generator), T{});
  return all;
}
template <class T>
Doubles numbers(const std::vector<T>& all) {
  Doubles found;
  for (const auto x : all) found.push_back(number(x));
  return found;
}

// The distance over the norm; what a pass must not touch is in both.
template <class T>
double distance(const std::vector<T>& found, const Doubles& want) {
  double apart = 0, norm = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    const auto d = number(found[i]) - want[i];
    apart += d * d;
    norm += want[i] * want[i];
  }
  return std::sqrt(norm > 0 ? apart / norm : apart);
}

template <class T>
constexpr double kNear = std::is_same_v<T, float> ? 2e-6 : 6e-3;
template <class T>
constexpr const char* kOf = std::is_same_v<T, float> ? "fp32" : "bf16";

constexpr Count kWidths[] = {1, 7, 8, 9, 15, 16, 17, 31, 33, 70};

template <class Body>
void in_every_build(Body body) {
  for (const auto with : {Instructions::Base, Instructions::Avx2, Instructions::Avx512}) {
    if (!available(with)) continue;
    const std::string name = with == Instructions::Base ? "base" : with == Instructions::Avx2 ? "avx2" : "avx512";
    const auto of = [&]<class T>(T) {
      INFO(name << ", " << kOf<T>);
      body(passes<T>(with), T{});
    };
    of(0.0F);
    of(Half{});
  }
}
// Rows in two calls.
template <class Pass, class Job>
void in_parts(Pass pass, const Job& job, Count rows) {
  pass(job, 0, rows / 2);
  pass(job, rows / 2, rows);
}

double gelu(double x) { return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))); }
double curve(Curve of, double x) {
  return of == Curve::Silu ? x / (1 + std::exp(-x)) : of == Curve::Relu ? std::max(x, 0.0) : gelu(x);
}
double slope(Curve of, double x) {
  if (of == Curve::Relu) return x > 0 ? 1 : 0;
  return (curve(of, x + 1e-5) - curve(of, x - 1e-5)) / 2e-5;
}

}  // namespace

TEST_CASE("all builds that this machine can run are tried, and the newest is the one that is used") {
  std::string names;
  for (const auto with : {Instructions::Base, Instructions::Avx2, Instructions::Avx512})
    if (available(with))
      names += with == Instructions::Base ? "base" : with == Instructions::Avx2 ? " avx2" : " avx512";
  WARN("instructions that were tried: " << names);
  const auto newest = available(Instructions::Avx512) ? Instructions::Avx512
                      : available(Instructions::Avx2) ? Instructions::Avx2
                                                      : Instructions::Base;
  CHECK(passes<float>().norm == passes<float>(newest).norm);
  CHECK(passes<Half>().norm == passes<Half>(newest).norm);
}

TEST_CASE("norms and their backward passes are those of the definition, in every build") {
  in_every_build([]<class T>(const Passes<T>& pass, T) {
    for (const Count width : kWidths) {
      for (const int form : {0, 1, 2, 3}) {  // bit 0: with a mean; bit 1: with something added
        const bool centred = form & 1, added = form & 2;
        constexpr Count kRows = 5;
        const Count stride = width + 3;
        const auto x = normal<T>(kRows * width, 1), add = normal<T>(kRows * stride, 2), more = normal<T>(width, 3),
                   weight = normal<T>(width, 4), bias = normal<T>(width, 5);
        std::vector<T> sum(x.size());
        auto out = normal<T>(kRows * stride, 6);
        std::vector<float> mean(kRows), scale(kRows);
        auto want = numbers(out), normalised = numbers(x), scales = Doubles(kRows), means = Doubles(kRows);
        for (Count r = 0; r < kRows; ++r) {
          auto* row = normalised.data() + r * width;
          for (Count i = 0; added && i < width; ++i) {
            row[i] += number(add[r * stride + i]) + (centred ? number(more[i]) : 0);
            row[i] = number(rounded(static_cast<float>(row[i]), T{}));
          }
          double squares = 0;
          for (Count i = 0; centred && i < width; ++i) means[r] += row[i] / width;
          for (Count i = 0; i < width; ++i) squares += (row[i] - means[r]) * (row[i] - means[r]);
          scales[r] = 1 / std::sqrt(squares / width + 1e-3);
          for (Count i = 0; i < width; ++i) {
            row[i] = (row[i] - means[r]) * scales[r];
            want[r * stride + i] = row[i] * number(weight[i]) + (centred ? number(bias[i]) : 0);
          }
        }
        NormJob<T> job{.x = x.data(), .weight = weight.data(), .out = out.data()};
        job.out_stride = stride, job.width = width, job.scale = scale.data(), job.epsilon = 1e-3;
        if (added) job.add = add.data(), job.add_stride = stride, job.sum = sum.data();
        if (centred) job.mean = mean.data(), job.bias = bias.data(), job.add_bias = added ? more.data() : nullptr;
        in_parts(pass.norm, job, kRows);
        INFO("width " << width << ", form " << form);
        CHECK(distance(out, want) < kNear<T>);
        CHECK(distance(scale, scales) < 1e-5);

        const auto g = normal<T>(kRows * stride, 7), through = normal<T>(kRows * width, 8);
        std::vector<T> dx(x.size());
        Doubles back, d_weight(width, 1.0), d_bias(width, 1.0);
        for (Count r = 0; r < kRows; ++r) {
          const auto* row = normalised.data() + r * width;
          double along = 0, level = 0;
          for (Count i = 0; i < width; ++i) {
            const auto gradient = number(g[r * stride + i]);
            along += gradient * number(weight[i]) * row[i] / width;
            level += centred ? gradient * number(weight[i]) / width : 0;
            d_weight[i] += gradient * row[i];
            d_bias[i] += gradient;
          }
          for (Count i = 0; i < width; ++i)
            back.push_back((number(g[r * stride + i]) * number(weight[i]) - level - row[i] * along) * scales[r] +
                           number(through[r * width + i]));
        }
        NormBackJob<T> other{.g = g.data(), .x = added ? sum.data() : x.data(), .weight = weight.data()};
        other.through = through.data(), other.dx = dx.data(), other.g_stride = stride, other.width = width;
        other.scale = scale.data(), other.mean = centred ? mean.data() : nullptr;
        std::vector<float> scratch(width), by_weight(width, 1.0F), by_bias(width, 1.0F);
        const NormBackSums sums{scratch.data(), by_weight.data(), by_bias.data()};
        pass.norm_back(other, sums, 0, 2);
        pass.norm_back(other, sums, 2, kRows);
        CHECK(distance(dx, back) < 4 * kNear<T>);
        CHECK(distance(by_weight, d_weight) < 1e-5);
        CHECK(distance(by_bias, d_bias) < 1e-5);
      }
    }
  });
}

TEST_CASE("heads are cut out, turned, and put back by the transpose, in every build") {
  in_every_build([]<class T>(const Passes<T>& pass, T) {
    for (const auto& [dim, turned] : {std::pair<Count, Count>{6, 6}, {10, 4}, {33, 32}, {64, 64}, {9, 0}}) {
      constexpr Count kBatch = 2, kLength = 7, kHeads = 4, kGroup = 2, kBlock = 3;
      const Count head_stride = dim + 2, row_stride = kHeads * head_stride + 5;
      auto rows = normal<T>(kBatch * kLength * row_stride, 1);
      const auto bias = normal<T>(kHeads * head_stride, 2), cos = normal<T>(kLength * std::max<Count>(turned, 1), 3),
                 sin = normal<T>(kLength * std::max<Count>(turned, 1), 4);
      std::vector<T> heads(kBatch * kHeads * kLength * dim);
      HeadsJob<T> job{.rows = rows.data(), .heads = heads.data(), .bias = bias.data()};
      job.row_stride = row_stride, job.head_stride = head_stride, job.turned = turned, job.count = kHeads;
      job.group = kGroup, job.length = kLength, job.block = kBlock, job.dim = dim;
      if (turned > 0) job.cos = cos.data(), job.sin = sin.data();
      in_parts(pass.to_heads, job, kBatch * kLength);
      // (batch, h / group, t / block, h % group, t % block, i), the last block shorter.
      Doubles want;
      std::vector<Count> from;  // of each element of the heads, where its row stands
      std::vector<std::pair<Count, Count>> places;
      for (Count b = 0; b < kBatch; ++b)
        for (Count outer = 0; outer < kHeads / kGroup; ++outer)
          for (Count block = 0; block < kLength; block += kBlock)
            for (Count h = outer * kGroup; h < (outer + 1) * kGroup; ++h)
              for (Count t = block; t < std::min(block + kBlock, kLength); ++t)
                for (Count i = 0; i < dim; ++i) {
                  const Count at = (b * kLength + t) * row_stride + h * head_stride;
                  const auto x = [&](Count j) { return number(rows[at + j]) + number(bias[h * head_stride + j]); };
                  from.push_back(at);
                  places.emplace_back(t, i);
                  want.push_back(i < turned ? x(i) * number(cos[t * turned + i]) +
                                                  x((i + turned / 2) % turned) * number(sin[t * turned + i])
                                            : x(i));
                }
      INFO("dim " << dim << ", turned " << turned);
      CHECK(distance(heads, want) < kNear<T>);

      auto back = numbers(rows);
      for (std::size_t e = 0; e < from.size(); ++e) back[from[e] + places[e].second] = 0;
      for (std::size_t e = 0; e < from.size(); ++e) {
        const auto [t, i] = places[e];
        const auto g = number(heads[e]);
        back[from[e] + i] += i < turned ? g * number(cos[t * turned + i]) : g;
        if (i < turned) back[from[e] + (i + turned / 2) % turned] += g * number(sin[t * turned + i]);
      }
      in_parts(pass.from_heads, job, kBatch * kLength);
      CHECK(distance(rows, back) < kNear<T>);
    }
  });
}

TEST_CASE("softmax over what is visible, and its backward pass, in every build") {
  in_every_build([]<class T>(const Passes<T>& pass, T) {
    for (const Count keys : {1, 8, 13, 17, 40}) {
      constexpr Count kMatrices = 4, kRows = 6, kQueries = 3;
      const Count stride = keys + 2, d_stride = keys + 1;
      auto scores = normal<T>(kMatrices * kRows * stride, 1), d = normal<T>(kMatrices * kRows * d_stride, 2);
      std::vector<float> log_sum(kMatrices * kRows);
      std::vector<std::int32_t> low, high;  // two groups of matrices
      for (int q = 0; q < 6; ++q) low.push_back(q % 2), high.push_back(static_cast<std::int32_t>(keys) + 2 - q);
      for (auto& end : high) end = std::max(end, 1);
      for (auto& first : low) first = keys == 1 ? 0 : first;
      for (std::size_t q = 0; q < 6; ++q) low[q] = std::min(low[q], high[q] - 1);
      SoftmaxJob<T> job{.scores = scores.data(), .d = d.data(), .log_sum = log_sum.data()};
      job.low = low.data(), job.high = high.data(), job.matrices = kMatrices, job.rows = kRows, job.queries = kQueries;
      job.matrix_stride = kRows * stride, job.row_stride = stride, job.log_sum_stride = kRows;
      job.d_matrix_stride = kRows * d_stride, job.d_row_stride = d_stride, job.limits_every = 2;
      job.limits_stride = kQueries, job.keys = keys, job.scale = 0.7;
      const auto products = scores;
      auto want = numbers(scores), back = numbers(d);
      for (Count m = 0; m < kMatrices; ++m) {
        for (Count r = 0; r < kRows; ++r) {
          const auto limit = static_cast<std::size_t>(m / 2 * kQueries + r % kQueries);
          const Count first = low[limit], end = std::min<Count>(high[limit], keys);
          auto *p = want.data() + (m * kRows + r) * stride, *g = back.data() + (m * kRows + r) * d_stride;
          double sum = 0, along = 0;
          for (Count i = first; i < end; ++i) sum += std::exp(0.7 * p[i]);
          for (Count i = 0; i < keys; ++i) p[i] = i >= first && i < end ? std::exp(0.7 * p[i]) / sum : 0;
          for (Count i = first; i < end; ++i) along += p[i] * g[i];
          for (Count i = 0; i < keys; ++i) g[i] = p[i] * (g[i] - along) * 0.7;
        }
      }
      in_parts(pass.softmax, job, kMatrices * kRows);
      INFO("keys " << keys);
      CHECK(distance(scores, want) < kNear<T>);
      scores = products;
      job.scores = scores.data();
      in_parts(pass.softmax_back, job, kMatrices * kRows);
      CHECK(distance(scores, want) < kNear<T>);
      CHECK(distance(d, back) < 2 * kNear<T>);
    }
  });
}

TEST_CASE("gates and activations, with their slopes and in place, in every build") {
  in_every_build([]<class T>(const Passes<T>& pass, T) {
    for (const auto of : {Curve::Silu, Curve::GeluTanh, Curve::Relu}) {
      for (const Count width : kWidths) {
        for (const bool gated : {true, false}) {
          constexpr Count kRows = 4;
          const Count stride = width + 1;
          auto gate = normal<T>(kRows * stride, 1), up = normal<T>(kRows * stride, 2);
          const auto gate_bias = normal<T>(width, 3), up_bias = normal<T>(width, 4), d = normal<T>(kRows * width, 5);
          std::vector<T> act(kRows * width);
          Doubles want, d_gate = numbers(gate), d_up = numbers(up);
          for (Count r = 0; r < kRows; ++r) {
            for (Count i = 0; i < width; ++i) {
              const auto u = number(up[r * stride + i]) + number(up_bias[i]),
                         v = number(gate[r * stride + i]) + number(gate_bias[i]), g = number(d[r * width + i]);
              want.push_back(gated ? curve(of, v) * u : curve(of, u));
              d_up[r * stride + i] = gated ? g * curve(of, v) : g * slope(of, u);
              if (gated) d_gate[r * stride + i] = g * u * slope(of, v);
            }
          }
          GateJob<T> job{.up = up.data(), .up_bias = up_bias.data(), .d = d.data(), .act = act.data()};
          job.in_stride = stride, job.act_stride = width, job.d_stride = width, job.width = width, job.curve = of;
          if (gated) job.gate = gate.data(), job.gate_bias = gate_bias.data(), job.d_gate = gate.data();
          job.d_up = up.data();
          in_parts(pass.gate, job, kRows);
          INFO("width " << width << ", gated " << gated << ", curve " << static_cast<int>(of));
          CHECK(distance(act, want) < kNear<T>);
          std::fill(act.begin(), act.end(), T{});
          in_parts(pass.gate_back, job, kRows);
          CHECK(distance(act, want) < kNear<T>);
          CHECK(distance(up, d_up) < 2 * kNear<T>);
          CHECK(distance(gate, d_gate) < 2 * kNear<T>);
        }
      }
    }
  });
}

TEST_CASE("cross-entropy and its gradient, in every build") {
  in_every_build([]<class T>(const Passes<T>& pass, T) {
    for (const Count width : {1, 9, 33, 1100}) {
      auto logits = normal<T>(3 * width, 1);
      const std::int64_t labels[] = {0, width / 2, width - 1};
      Doubles want = numbers(logits), nats;
      for (Count r = 0; r < 3; ++r) {
        auto* row = want.data() + r * width;
        double sum = 0;
        for (Count i = 0; i < width; ++i) sum += std::exp(row[i]);
        nats.push_back(std::log(sum) - row[labels[r]]);
        for (Count i = 0; i < width; ++i) row[i] = std::exp(row[i]) / sum - (i == labels[r] ? 1 : 0);
      }
      Doubles found(3);
      in_parts(pass.cross_entropy, CrossEntropyJob<T>{logits.data(), labels, found.data(), width}, 3);
      INFO("width " << width);
      for (std::size_t r = 0; r < 3; ++r) CHECK(found[r] == Approx(nats[r]).epsilon(1e-6).margin(1e-6));
      if (width == 1)
        for (const auto x : logits) CHECK(std::abs(number(x)) < 1e-6);
      else
        CHECK(distance(logits, want) < kNear<T>);
    }
  });
}

TEST_CASE("sums, casts and products with few vectors, in every build") {
  in_every_build([]<class T>(const Passes<T>& pass, T) {
    for (const Count width : kWidths) {
      constexpr Count kRows = 5;
      const Count stride = width + 2;
      INFO("width " << width);
      const auto x = normal<T>(kRows * width, 1), y = normal<T>(kRows * stride, 2), bias = normal<T>(width, 3);
      std::vector<T> out(x.size());
      Doubles want, sums(width, 2.0);
      for (Count r = 0; r < kRows; ++r)
        for (Count i = 0; i < width; ++i) {
          want.push_back(number(x[r * width + i]) + number(y[r * stride + i]) + number(bias[i]));
          sums[i] += number(y[r * stride + i]);
        }
      in_parts(pass.add, AddJob<T>{x.data(), y.data(), bias.data(), out.data(), stride, width}, kRows);
      CHECK(distance(out, want) < kNear<T>);

      std::vector<float> to(width, 2.0F);
      pass.sum_rows({y.data(), stride, width}, to.data(), 0, 2);
      pass.sum_rows({y.data(), stride, width}, to.data(), 2, kRows);
      CHECK(distance(to, sums) < 1e-5);

      const auto wide = normal<float>(kRows * stride, 4);
      auto narrow = normal<T>(kRows * (width + 1), 5);
      want = numbers(narrow);
      for (Count r = 0; r < kRows; ++r)
        for (Count i = 0; i < width; ++i) want[r * (width + 1) + i] = 0.25 * wide[r * stride + i];
      in_parts(pass.cast, CastJob<T>{wide.data(), narrow.data(), stride, width + 1, width, 0.25F}, kRows);
      CHECK(distance(narrow, want) < kNear<T>);

      for (const Count vectors : {1, 3}) {
        const auto by = normal<float>(vectors * width, 6);
        std::vector<float> product(vectors * kRows);
        Doubles found;
        for (Count v = 0; v < vectors; ++v)
          for (Count r = 0; r < kRows; ++r) {
            double sum = 0;
            for (Count i = 0; i < width; ++i) sum += number(y[r * stride + i]) * by[v * width + i];
            found.push_back(sum);
          }
        in_parts(pass.vector_product,
                 VectorProductJob<T>{y.data(), by.data(), product.data(), stride, width, vectors, kRows}, kRows);
        CHECK(distance(product, found) < 1e-5);
      }

      for (const Count columns : {1, 2, 5, 7, 13}) {
        const auto by = normal<T>(kRows * (columns + 1), 7);
        std::vector<float> wide_by, factor(static_cast<std::size_t>(kRows * columns));
        Doubles want_thin(static_cast<std::size_t>(columns * stride), 3.0);  // between the rows nothing is written
        for (Count r = 0; r < kRows; ++r)
          for (Count c = 0; c < columns; ++c) wide_by.push_back(static_cast<float>(number(by[r * (columns + 1) + c])));
        for (Count c = 0; c < columns; ++c)
          for (Count i = 0; i < width; ++i) {
            auto& sum = want_thin[c * stride + i] = 0;
            for (Count r = 0; r < kRows; ++r) sum += 0.5 * wide_by[r * columns + c] * number(y[r * stride + i]);
          }
        pass.thin_factor(by.data(), columns + 1, kRows, columns, factor.data());
        for (const bool low_rank : {false, true}) {
          std::vector<float> thin(want_thin.size(), 3.0F);
          const auto* with = low_rank ? factor.data() : wide_by.data();
          const auto product = low_rank ? pass.low_rank_product : pass.thin_product;
          const ThinProductJob<T> job{with, y.data(), thin.data(), stride, stride, kRows, columns, 0.5F};
          product(job, 0, width / 2);
          product(job, width / 2, width);
          CHECK(distance(thin, want_thin) < 1e-5);
        }
      }
    }
  });
}
