// A plugin as it was written against version 1: a mean with a parameter, and a codec without loss. Never changed after the
// release, like the headers beside it.
#include <string>

#include <ATen/ops/cat.h>
#include <ATen/ops/flip.h>
#include <ATen/ops/zeros.h>
#include <hansa/aggregator.hpp>
#include <hansa/compressor.hpp>
#include <hansa/plugin.hpp>

namespace {

struct Params {
  double share = 1;
  std::vector<std::string> remarks = {"none"};
};

// Uses what an aggregator may: state, a survey, the host, both ways of giving a result, metrics.
class OldSum final : public hansa::Aggregator {
 public:
  OldSum(Params params, hansa::Host& host) : params_(std::move(params)), host_(host) {}
  std::uint64_t workspace(const hansa::Layout& layout, const hansa::Group& group, std::size_t) const override {
    std::uint64_t most = 0;
    for (auto member : group.members)
      most = std::max<std::uint64_t>(most, static_cast<std::uint64_t>(layout.tensors.at(member).elements()) * 8);
    return most;
  }
  void begin(const hansa::RoundPlan& plan) override { round_ = plan.round; }
  bool surveys() const override { return true; }
  void survey(const hansa::Updates& updates) override { surveyed_ += updates.clients(); }
  void reduce(const hansa::Updates& updates, hansa::Results& results) override {
    for (std::size_t member = 0; member < updates.group().members.size(); ++member) {
      auto sum = at::zeros(updates.tensor(member).shape);
      for (std::size_t client = 0; client < updates.clients(); ++client)
        sum.add_(updates.delta(client, member), updates.who(client).weight * params_.share);
      if (member % 2)
        results.put(member, sum);
      else
        results.put_slice(member, 0, sum.flatten());
    }
  }
  hansa::Metrics finish(hansa::Results&) override {
    ++rounds_;
    host_.log(hansa::Host::Level::Info, "round " + std::to_string(round_) + " was summed");
    return {{"surveyed_by_version_1", static_cast<double>(std::exchange(surveyed_, 0))}};
  }
  std::uint32_t state_version() const override { return 1; }
  void save(hansa::StateWriter& writer) const override { writer.put("rounds", std::to_string(rounds_)); }
  void load(const hansa::StateReader& reader, std::uint32_t version) override {
    if (version != 1) throw std::runtime_error("this state is not of version 1");
    rounds_ = std::stoull(reader.bytes("rounds"));
  }

 private:
  Params params_;
  hansa::Host& host_;
  hansa::Round round_ = 0;
  std::uint64_t rounds_ = 0;
  std::size_t surveyed_ = 0;
};

// Two parts, each turned round, and a header that says where they meet.
class OldTurn final : public hansa::Stateless<hansa::Compressor> {
 public:
  hansa::SizePlan plan(const hansa::TensorSpec& in) const override {
    const auto all = in.elements(), first = all / 2;
    const auto bytes = static_cast<std::uint64_t>(all) * hansa::size_of(in.dtype);
    return {{{in.name + ".0", in.dtype, {first}}, {in.name + ".1", in.dtype, {all - first}}}, bytes + 20, bytes + 20};
  }
  hansa::Encoded encode(const at::Tensor& in, hansa::Seeds) const override {
    const auto flat = in.flatten();
    const auto all = flat.numel(), first = all / 2;
    return {{at::flip(flat.narrow(0, 0, first), {0}), at::flip(flat.narrow(0, first, all - first), {0})},
            std::to_string(first)};
  }
  at::Tensor decode(const hansa::Encoded& encoded, const hansa::TensorSpec& out, std::uint64_t) const override {
    if (encoded.parts.size() != 2 || encoded.header != std::to_string(out.elements() / 2) ||
        encoded.parts[0].numel() + encoded.parts[1].numel() != out.elements())
      throw std::invalid_argument("not what old_turn encodes");
    return at::cat({at::flip(encoded.parts[0].flatten(), {0}), at::flip(encoded.parts[1].flatten(), {0})})
        .view(out.shape);
  }
};

}  // namespace

HANSA_PLUGIN(org_hansa_test_of_version_1, "1.0.0") {
  plugin.vendor("Hansa's tests").license("Apache-2.0");
  plugin.add<OldSum, Params>("old_sum", "The weighted sum, as version 1 had it.")
      .traits(HANSA_TRAIT_ADDITIVE | HANSA_TRAIT_ORDER_FREE)
      .param(&Params::share, "share", "Of every change.", hansa::range(0, 1), "fraction")
      .param(&Params::remarks, "remarks", "Nothing looks at them.", hansa::list_of(hansa::range(1, 20)));
  plugin.add<OldTurn>("old_turn", "Turns each half round.")
      .traits(HANSA_TRAIT_LOSSLESS | HANSA_TRAIT_UNBIASED | HANSA_TRAIT_LINEAR | HANSA_TRAIT_NORM_SAFE |
              HANSA_TRAIT_FIXED_SUPPORT | HANSA_TRAIT_STATELESS);
}
