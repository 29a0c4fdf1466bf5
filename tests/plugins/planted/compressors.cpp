// Codecs with one bug each.
#include <chrono>
#include <cmath>
#include <cstring>
#include <mutex>
#include <thread>

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <hansa/as_is.hpp>
#include <hansa/compressor.hpp>
#include <hansa/plugin.hpp>

namespace planted {
using namespace hansa;

at::ScalarType type_of(const TensorSpec& spec) {
  return spec.dtype == DType::f16 ? at::kHalf : spec.dtype == DType::bf16 ? at::kBFloat16 : at::kFloat;
}

// The values as they are.
class Plain : public Stateless<Compressor> {
 public:
  SizePlan plan(const TensorSpec& in) const override { return as_is::plan(in); }
  Encoded encode(const at::Tensor& in, Seeds) const override {
    return as_is::encode(in.clone(at::MemoryFormat::Contiguous));
  }
  at::Tensor decode(const Encoded& encoded, const TensorSpec& out, std::uint64_t) const override {
    if (as_is::whole(out.dtype)) return as_is::decode(encoded, out);
    if (encoded.parts.size() != 1 || encoded.parts[0].scalar_type() != type_of(out) ||
        encoded.parts[0].numel() != out.elements())
      throw std::invalid_argument("not what encode() gives");
    return changed(encoded.parts[0].clone(at::MemoryFormat::Contiguous).view(out.shape));
  }

 protected:
  virtual at::Tensor changed(at::Tensor values) const { return values; }
};

class WrongPlan final : public Plain {
  SizePlan plan(const TensorSpec& in) const override {
    auto plan = as_is::plan(in);
    plan.typical_bytes = plan.most_bytes = plan.most_bytes / 2;
    return plan;
  }
};
class BiasedRounding final : public Plain {  // towards zero
  at::Tensor changed(at::Tensor values) const override { return values.mul(64).trunc().div(64); }
};
class LossyLossless final : public Plain {
  at::Tensor changed(at::Tensor values) const override {
    return values.scalar_type() == at::kFloat ? values.to(at::kBFloat16).to(at::kFloat) : values;
  }
};
class Amplifies final : public Plain {
  at::Tensor changed(at::Tensor values) const override { return values.mul(3); }
};
class NormGrows final : public Plain {
  at::Tensor changed(at::Tensor values) const override { return values.mul(1.01); }
};
class Clamps final : public Plain {  // declared Linear
  at::Tensor changed(at::Tensor values) const override { return values.clamp(-1, 1); }
};
class SupportFollowsValues final : public Plain {
  at::Tensor changed(at::Tensor values) const override { return values.mul(values.abs().ge(values.abs().mean())); }
};
class IgnoresStrides final : public Plain {
  Encoded encode(const at::Tensor& in, Seeds) const override {
    auto copy = at::empty(in.sizes(), in.options());
    std::memcpy(copy.mutable_data_ptr(), in.const_data_ptr(), in.nbytes());
    return {{copy}, ""};
  }
};
class TrustsTheBytes final : public Plain {  // the count of values stands in the header
  SizePlan plan(const TensorSpec& in) const override {
    auto plan = as_is::plan(in);
    plan.most_bytes += sizeof(std::int64_t);
    return plan;
  }
  Encoded encode(const at::Tensor& in, Seeds) const override {
    const std::int64_t count = in.numel();
    return {{in.clone(at::MemoryFormat::Contiguous)},
            std::string(reinterpret_cast<const char*>(&count), sizeof(count))};
  }
  at::Tensor decode(const Encoded& encoded, const TensorSpec& out, std::uint64_t) const override {
    if (encoded.parts.empty() || encoded.header.size() < sizeof(std::int64_t))
      throw std::invalid_argument("not what encode() gives");
    std::int64_t count = 0;
    std::memcpy(&count, encoded.header.data(), sizeof(count));
    return encoded.parts[0].contiguous().flatten().narrow(
        0, 0, std::min(std::max<std::int64_t>(count, 0), encoded.parts[0].numel()));
  }
};
class ForgetsWholeNumbers final : public Plain {
  at::Tensor decode(const Encoded& encoded, const TensorSpec& out, std::uint64_t) const override {
    return encoded.parts.at(0).to(type_of(out)).clone().view(out.shape);
  }
};
class OneScratch final : public Plain {  // all calls share a buffer; its lock is let go between writing and reading
  Encoded encode(const at::Tensor& in, Seeds seeds) const override {
    {
      const std::scoped_lock lock(lock_);
      scratch_ = in.clone(at::MemoryFormat::Contiguous);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    const std::scoped_lock lock(lock_);
    return Plain::encode(scratch_, seeds);
  }
  mutable std::mutex lock_;
  mutable at::Tensor scratch_;
};
class SendsRoots final : public Plain {  // declared AdditiveCodes
  Encoded encode(const at::Tensor& in, Seeds seeds) const override {
    if (!in.is_floating_point()) return Plain::encode(in, seeds);
    return {{in.sgn().mul(in.abs().sqrt()).contiguous()}, ""};
  }
  at::Tensor changed(at::Tensor values) const override { return values.mul(values.abs()); }
};

}  // namespace planted

HANSA_PLUGIN(org_hansa_planted_compressors, "0.1.0") {
  using namespace planted;
  constexpr std::uint64_t kBase = HANSA_TRAIT_STATELESS;
  plugin.add<Plain>("right_codec", "Nothing is wrong with it.")
      .traits(kBase | HANSA_TRAIT_LOSSLESS | HANSA_TRAIT_UNBIASED | HANSA_TRAIT_NORM_SAFE | HANSA_TRAIT_LINEAR |
              HANSA_TRAIT_FIXED_SUPPORT | HANSA_TRAIT_ADDITIVE_CODES | HANSA_TRAIT_REENTRANT);
  plugin.add<OneScratch>("one_scratch", "Declares Reentrant, and all calls share a buffer.")
      .traits(kBase | HANSA_TRAIT_REENTRANT);
  plugin.add<SendsRoots>("sends_roots", "Declares AdditiveCodes, and sends roots.")
      .traits(kBase | HANSA_TRAIT_ADDITIVE_CODES);
  plugin.add<WrongPlan>("wrong_plan", "Plans half of what it sends.").traits(kBase);
  plugin.add<BiasedRounding>("biased_rounding", "Declares Unbiased and rounds towards zero.")
      .traits(kBase | HANSA_TRAIT_UNBIASED);
  plugin.add<LossyLossless>("lossy_lossless", "Declares Lossless and drops bits.").traits(kBase | HANSA_TRAIT_LOSSLESS);
  plugin.add<Amplifies>("amplifies", "Gives three times what it got.").traits(kBase);
  plugin.add<NormGrows>("norm_grows", "Declares NormSafe and grows by a percent.")
      .traits(kBase | HANSA_TRAIT_NORM_SAFE);
  plugin.add<Clamps>("clamps", "Declares Linear and clamps.").traits(kBase | HANSA_TRAIT_LINEAR);
  plugin.add<SupportFollowsValues>("support_follows_values", "Declares FixedSupport and drops what is small.")
      .traits(kBase | HANSA_TRAIT_FIXED_SUPPORT);
  plugin.add<IgnoresStrides>("ignores_strides", "Reads a transposed tensor as if it were not.").traits(kBase);
  plugin.add<TrustsTheBytes>("trusts_the_bytes", "Believes a length that stands in the bytes.").traits(kBase);
  plugin.add<ForgetsWholeNumbers>("forgets_whole_numbers", "Turns another stage's codes into floats.").traits(kBase);
}
