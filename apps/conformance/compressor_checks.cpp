// What a codec promises by its interface and by the traits that it declares.
#include <algorithm>
#include <barrier>
#include <cmath>
#include <random>
#include <thread>

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <hansa/compressor.hpp>
#include <hansa/testing/compressor_suite.hpp>

#include "conformance/driver.hpp"
#include "conformance/partners.hpp"
#include "conformance/probes.hpp"

namespace hansa::conformance {
namespace {

using testing::fits, testing::normal_tensor;

// Shapes by size: a lone element up to a few thousand, with an empty one and a scalar among them.
std::vector<std::vector<std::int64_t>> packet_shapes(int size) {
  static const std::vector<std::vector<std::int64_t>> by_size[] = {
      {{1}}, {{}, {0}}, {{7}, {3, 5}}, {{257}, {0, 4}, {2, 3, 4, 5}}, {{64, 100}}};
  return by_size[size];
}
constexpr DType kFloats[] = {DType::f32, DType::f16, DType::bf16};

TensorSpec spec_of(const std::vector<std::int64_t>& shape, DType type) {
  return {"model.layers.0.proj.lora_A", type, shape};
}
std::string describe_shapes(const Case& input) {
  return fmt::format("tensors {}", shapes_text(packet_shapes(input.size)));
}

// A codec may take fp32 alone, if plan() says so: `hansa check` then tells before anything runs.
bool refuses(const Compressor& codec, const TensorSpec& spec) {
  try {
    codec.plan(spec);
    return false;
  } catch (const std::exception&) {
    return true;
  }
}

void with_inputs(
    const Subject& subject,
    const std::function<void(const Compressor&, const at::Tensor&, const TensorSpec&, std::uint64_t)>& call) {
  const auto codec = subject.make<Compressor>();
  smallest_first(subject, describe_shapes, [&](const Case& input) {
    for (const auto& shape : packet_shapes(input.size))
      for (auto type : kFloats) {
        const auto spec = spec_of(shape, type);
        const auto seed = subject.seed * 131 + input.seed;
        if (type != DType::f32 && refuses(*codec, spec)) continue;
        with_input(subject, seed, fmt::format("a tensor {} of {}", shapes_text({shape}), name_of(type)),
                   [&] { call(*codec, normal_tensor(type, shape, seed), spec, seed); });
      }
  });
}
at::Tensor there_and_back(const Compressor& codec, const at::Tensor& in, const TensorSpec& spec, Seeds seeds) {
  return codec.decode(codec.encode(in, seeds), spec, seeds.common);
}

class CompressorDriver final : public Driver {
 public:
  CompressorDriver(const Subject& subject, const Value& params, std::uint64_t run_seed)
      : codec_(subject.make_with<Compressor>(params, run_seed)) {}
  Component& component() override { return *codec_; }
  NamedTensors play(const Case& input) override {
    NamedTensors trace;
    for (const auto& shape : packet_shapes(input.size)) {
      const auto values = normal_tensor(DType::f32, shape, input.seed + 1000 * input.round);
      const auto spec = spec_of(shape, DType::f32);
      Lent lent;
      auto in = watches_inputs ? lent.add(values) : values;
      auto encoded = codec_->encode(in, {input.seed, 7});
      const auto decoded = codec_->decode(encoded, spec, input.seed);
      for (auto& part : encoded.parts) trace.emplace_back("a part", part.clone());
      trace.emplace_back("the decoded tensor", decoded.clone());
      encoded.parts.clear();  // a part may be the input itself
      if (!watches_inputs) continue;
      in.reset();
      lent.check("the tensor to encode");
    }
    return trace;
  }
  std::string describe(const Case& input) const override { return describe_shapes(input); }

 private:
  Instance<Compressor> codec_;
};

void plan(const Subject& subject) {
  with_inputs(subject, [](const Compressor& codec, const at::Tensor& in, const TensorSpec& spec, std::uint64_t seed) {
    const auto plan = codec.plan(spec);
    const auto encoded = codec.encode(in, {seed, seed + 1});
    hold(encoded.parts.size() == plan.parts.size(),
         fmt::format("plan() promises {} parts, encode() gives {}", plan.parts.size(), encoded.parts.size()));
    std::uint64_t bytes = encoded.header.size();
    for (std::size_t i = 0; i < encoded.parts.size(); ++i) {
      hold(fits(encoded.parts[i], plan.parts[i]),
           fmt::format("part {} has not the type and shape that plan() promises, or is not contiguous", i));
      bytes += encoded.parts[i].nbytes();
    }
    hold(bytes <= plan.most_bytes,
         fmt::format("plan() promises at most {} bytes, encode() gives {}", plan.most_bytes, bytes));
    hold(plan.typical_bytes <= plan.most_bytes, "the typical size in plan() is above the largest");
  });
}

void shape(const Subject& subject) {
  with_inputs(subject, [](const Compressor& codec, const at::Tensor& in, const TensorSpec& spec, std::uint64_t seed) {
    const auto out = there_and_back(codec, in, spec, {seed, seed + 1});
    hold(fits(out, spec),
         fmt::format("decode() gives {} instead of {} of {}, contiguous", shapes_text({out.sizes().vec()}),
                     shapes_text({spec.shape}), name_of(spec.dtype)));
    if (in.dim() != 2) return;
    const auto turned = in.t();  // the same values, not contiguous
    const TensorSpec turned_spec{spec.name, spec.dtype, {in.size(1), in.size(0)}};
    hold(same_bits(there_and_back(codec, turned, turned_spec, {seed, seed + 1}),
                   there_and_back(codec, turned.contiguous(), turned_spec, {seed, seed + 1})),
         "a tensor that is not contiguous is encoded as if it were");
  });
}

// Codes and positions of an earlier stage pass through the later ones.
void whole_numbers(const Subject& subject) {
  const auto codec = subject.make<Compressor>();
  for (auto type : {DType::i8, DType::u8, DType::i32, DType::i64}) {
    const auto spec = spec_of({12}, type);
    const auto in = normal_tensor(type, {12}, subject.seed);
    with_input(subject, subject.seed, fmt::format("a tensor [12] of {}", name_of(type)), [&] {
      try {
        hold(same_bits(there_and_back(*codec, in, spec, {1, 2}), in), "whole numbers come back changed");
      } catch (const Broken&) {
        throw;
      } catch (const std::exception& e) {
        throw Broken(
            fmt::format("it cannot stand behind a stage whose codes are {}: {} (hansa/as_is.hpp passes them on)",
                        name_of(type), e.what()));
      }
    });
  }
}

void total(const Subject& subject) {
  const auto codec = subject.make<Compressor>();
  constexpr int kDamages = 300;
  for (int size = 0; size <= kLargest; ++size)
    for (const auto& extents : packet_shapes(size)) {
      const auto spec = spec_of(extents, DType::f32);
      const auto good = codec->encode(normal_tensor(DType::f32, extents, subject.seed), {1, 2});
      try {
        testing::check_total(*codec, good, spec, kDamages, subject.seed + static_cast<std::uint64_t>(size));
      } catch (const std::exception& e) {
        Broken broken(e.what());
        broken.seed = subject.seed + static_cast<std::uint64_t>(size);
        broken.input = fmt::format("damaged bytes of a tensor {}", shapes_text({extents}));
        throw broken;
      }
    }
}

void packet_needs(const Subject& subject, std::uint64_t trait, const char* name) {
  if (!subject.declares(trait)) throw NotConcerned(fmt::format("it does not declare {}", name));
}

void lossless(const Subject& subject) {
  packet_needs(subject, HANSA_TRAIT_LOSSLESS, "Lossless");
  with_inputs(subject, [](const Compressor& codec, const at::Tensor& in, const TensorSpec& spec, std::uint64_t seed) {
    hold(same_bits(there_and_back(codec, in, spec, {seed, seed + 1}), in), "what comes back differs");
  });
}

// The mean over many encodings is the input. Each element's error is compared with five standard errors of its mean, the sum
// over all elements likewise, which sees a bias too small for one of them.
void unbiased(const Subject& subject) {
  packet_needs(subject, HANSA_TRAIT_UNBIASED, "Unbiased");
  const auto codec = subject.make<Compressor>();
  constexpr int kTimes = 600;
  for (std::int64_t count : {1, 7, 64, 1000}) {
    const auto spec = spec_of({count}, DType::f32);
    const auto in = normal_tensor(DType::f32, {count}, subject.seed + static_cast<std::uint64_t>(count)).add_(0.3);
    auto sum = at::zeros({count}, at::TensorOptions().dtype(at::kDouble)), squares = sum.clone();
    double totals = 0, total_squares = 0;
    for (int i = 0; i < kTimes; ++i) {
      const auto step = static_cast<std::uint64_t>(i);
      const auto error = there_and_back(*codec, in, spec, {step * 2 + 11, step * 3 + 5}).to(at::kDouble).sub(in);
      sum.add_(error);
      squares.add_(error.square());
      const double all = error.sum().item<double>();
      totals += all;
      total_squares += all * all;
    }
    const auto beyond = [&](double total, double square) {
      const double mean = total / kTimes, deviation = std::sqrt(std::max(square / kTimes - mean * mean, 0.0));
      return std::abs(mean) - 5 * deviation / std::sqrt(kTimes) - 1e-6;
    };
    double worst = beyond(totals, total_squares) / static_cast<double>(count);
    for (std::int64_t i = 0; i < count; ++i)
      worst = std::max(worst, beyond(sum[i].item<double>(), squares[i].item<double>()));
    if (worst <= 0) continue;
    Broken broken(
        fmt::format("it declares Unbiased, but over {} encodings the mean error is {:.3g} beyond five standard errors",
                    kTimes, worst));
    broken.seed = subject.seed;
    broken.input = fmt::format("{} normal number(s) around 0.3", count);
    throw broken;
  }
}

// A biased codec must not be further from the input than sending nothing, or error feedback grows without end (arXiv 1901.09847).
void contraction(const Subject& subject) {
  if (subject.declares(HANSA_TRAIT_UNBIASED)) throw NotConcerned("it declares Unbiased");
  with_inputs(subject, [](const Compressor& codec, const at::Tensor& in, const TensorSpec& spec, std::uint64_t seed) {
    const auto x = in.to(at::kDouble);
    const double error =
        there_and_back(codec, in, spec, {seed, seed + 1}).to(at::kDouble).sub(x).square().sum().item<double>();
    const double norm = x.square().sum().item<double>();
    hold(error <= norm * (1 + 1e-6), fmt::format("what comes back is further from the input ({:.3g}) than nothing at "
                                                 "all ({:.3g}), so error feedback diverges",
                                                 std::sqrt(error), std::sqrt(norm)));
  });
}

void norm_safe(const Subject& subject) {
  packet_needs(subject, HANSA_TRAIT_NORM_SAFE, "NormSafe");
  with_inputs(subject, [](const Compressor& codec, const at::Tensor& in, const TensorSpec& spec, std::uint64_t seed) {
    const double before = in.to(at::kDouble).norm().item<double>();
    const double after = there_and_back(codec, in, spec, {seed, seed + 1}).to(at::kDouble).norm().item<double>();
    hold(after <= before * (1 + 1e-6),
         fmt::format("it declares NormSafe, but the norm goes from {:.6g} to {:.6g}, beyond a clip bound", before,
                     after));
  });
}

void linear(const Subject& subject) {
  packet_needs(subject, HANSA_TRAIT_LINEAR, "Linear");
  with_inputs(subject, [](const Compressor& codec, const at::Tensor& in, const TensorSpec& spec, std::uint64_t seed) {
    if (spec.dtype != DType::f32) return;
    const auto other = normal_tensor(spec.dtype, spec.shape, seed + 5);
    const Seeds seeds{seed, seed + 1};
    const auto one = there_and_back(codec, in, spec, seeds), two = there_and_back(codec, other, spec, seeds);
    const double error = relative_error(there_and_back(codec, in.add(other), spec, seeds), one.add(two));
    hold(error <= 1e-5,
         fmt::format("it declares Linear, but the code of a sum decodes {:.3g} away from the sum of the codes", error));
  });
}

void fixed_support(const Subject& subject) {
  packet_needs(subject, HANSA_TRAIT_FIXED_SUPPORT, "FixedSupport");
  with_inputs(subject, [](const Compressor& codec, const at::Tensor& in, const TensorSpec& spec, std::uint64_t seed) {
    const auto away = [](const at::Tensor& values) {
      return values.abs().clamp(0, 1).add(1);
    };  // nothing rounds to zero
    const Seeds seeds{seed, seed + 1};
    const auto one = away(in), other = away(normal_tensor(spec.dtype, spec.shape, seed + 5));
    hold(same_bits(there_and_back(codec, one, spec, seeds).ne(0), there_and_back(codec, other, spec, seeds).ne(0)),
         "it declares FixedSupport, but other values let other elements through");
  });
}

// The parts of two codes, added element by element, are the code of the sum (secure aggregation adds codes).
void additive_codes(const Subject& subject) {
  packet_needs(subject, HANSA_TRAIT_ADDITIVE_CODES, "AdditiveCodes");
  with_inputs(subject, [](const Compressor& codec, const at::Tensor& in, const TensorSpec& spec, std::uint64_t seed) {
    const auto other = normal_tensor(spec.dtype, spec.shape, seed + 5);
    auto sum = codec.encode(in, {seed, seed + 1});
    const auto one = codec.decode(sum, spec, seed).to(at::kDouble);
    const auto more = codec.encode(other, {seed, seed + 2});
    const auto two = codec.decode(more, spec, seed).to(at::kDouble);
    hold(sum.header == more.header && sum.parts.size() == more.parts.size(),
         "it declares AdditiveCodes, but two tensors of one shape have codes that differ in header or number of parts");
    for (std::size_t i = 0; i < sum.parts.size(); ++i) {
      hold(sum.parts[i].sizes() == more.parts[i].sizes(),
           fmt::format("it declares AdditiveCodes, but part {} of two tensors of one shape has two shapes", i));
      sum.parts[i] = sum.parts[i].add(more.parts[i]);
    }
    const double error = relative_error(codec.decode(sum, spec, seed).to(at::kDouble), one.add(two));
    hold(
        error <= (spec.dtype == DType::f32 ? 1e-5 : 2e-2),
        fmt::format("it declares AdditiveCodes, but the sum of two codes decodes {:.3g} away from the sum of what they "
                    "decode to",
                    error));
  });
}

// Several threads in one instance, each with a tensor of its own, against one after the other.
void reentrant(const Subject& subject) {
  packet_needs(subject, HANSA_TRAIT_REENTRANT, "Reentrant");
  const auto codec = subject.make<Compressor>();
  constexpr std::size_t kThreads = 3;
  smallest_first(subject, describe_shapes, [&](const Case& input) {
    const auto play = [&](std::size_t thread) {
      NamedTensors trace;
      for (const auto& shape : packet_shapes(input.size)) {
        const auto seed = subject.seed * 131 + input.seed + 17 * thread;
        const auto spec = spec_of(shape, DType::f32);
        const auto encoded = codec->encode(normal_tensor(DType::f32, shape, seed), {seed, seed + 1});
        for (const auto& part : encoded.parts) trace.emplace_back("a part", part.clone());
        trace.emplace_back("the decoded tensor", codec->decode(encoded, spec, seed).clone());
      }
      return trace;
    };
    std::vector<NamedTensors> want;
    for (std::size_t thread = 0; thread < kThreads; ++thread) want.push_back(play(thread));
    std::vector<std::string> seen(kThreads);
    std::barrier together(kThreads);
    std::vector<std::jthread> threads;
    for (std::size_t thread = 0; thread < kThreads; ++thread)
      threads.emplace_back([&, thread] {
        together.arrive_and_wait();
        const auto said = sentence_of([&] { seen[thread] = difference(play(thread), want[thread]); });
        if (!said.empty()) seen[thread] = said;
      });
    threads.clear();
    for (const auto& found : seen)
      hold(found.empty(), fmt::format("it declares Reentrant, but {} threads at once in one instance get other bits "
                                      "than one after the other: {}",
                                      kThreads, found));
  });
}

}  // namespace

Drive drive_compressor(const Subject& subject) {
  return {[&subject](const Value& params, std::uint64_t run_seed) {
    return std::make_unique<CompressorDriver>(subject, params, run_seed);
  }};
}

std::vector<Check> compressor_checks() {
  return {
      {"plan", "plan() tells the truth about parts and bytes.", plan},
      {"shape", "decode() gives exactly the tensor asked for: empty, scalar, half-precision, not contiguous.", shape},
      {"whole-numbers", "Codes of an earlier stage come back unchanged.", whole_numbers},
      {"total", "Damaged bytes give an exception or a tensor of the right shape, never a crash.", total},
      {"lossless", "Lossless: what comes back is what went in, bit for bit.", lossless},
      {"unbiased", "Unbiased: the mean of what comes back is what went in.", unbiased},
      {"contraction", "A biased codec is closer to the input than sending nothing.", contraction},
      {"norm", "NormSafe: the norm never grows.", norm_safe},
      {"linear", "Linear: the code of a sum is the sum of the codes.", linear},
      {"additive-codes", "AdditiveCodes: the sum of codes decodes to the sum of what they decode to.", additive_codes},
      {"reentrant", "Reentrant: several threads at once in one instance get the same bits.", reentrant},
      {"support", "FixedSupport: which elements are sent does not depend on the values.", fixed_support},
  };
}

}  // namespace hansa::conformance
