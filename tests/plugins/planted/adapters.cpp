// Low-rank adapters with one bug each.
#include <algorithm>
#include <stdexcept>

#include <ATen/core/Generator.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <hansa/adapter.hpp>
#include <hansa/plugin.hpp>
#include <hf/tensors.hpp>

namespace planted {
using namespace hansa;

constexpr const char* kFile = "planted_pairs.safetensors";
constexpr std::int64_t kRank = 2;

// A pair beside every linear module.
class Pairs : public Stateless<Adapter> {
 public:
  Layout layout(std::span<const Module> modules, double rank) const override {
    Layout layout;
    for (const auto& module : modules) {
      if (module.kind != Module::Kind::Linear) continue;
      const auto first = static_cast<Index>(layout.tensors.size());
      layout.tensors.push_back({module.name + ".A", DType::f32, shape_of_A(module, rank_of(rank))});
      layout.tensors.push_back({module.name + ".B", DType::f32, {module.out, rank_of(rank)}});
      layout.groups.push_back({"lora", {first, first + 1}, 1});
    }
    if (layout.tensors.empty()) throw std::invalid_argument("there is no linear module");
    return layout;
  }
  void create(const Model& model, std::span<const Module> modules, double rank, std::uint64_t seed) override {
    pairs_.clear();
    auto generator = at::make_generator<at::CPUGeneratorImpl>(seed);
    for (const auto& module : modules) {
      if (module.kind != Module::Kind::Linear) continue;
      look_at(model, module);
      auto A = values({rank_of(rank), module.in}, generator), B = start_of_B({module.out, rank_of(rank)}, generator);
      pairs_.push_back({module.name, A.requires_grad_(true), B.requires_grad_(true)});
    }
  }
  at::Tensor parameter(Index index) override {
    return index % 2 == 0 ? pairs_.at(index / 2).A : pairs_.at(index / 2).B;
  }
  std::vector<Injection> injections() override {
    std::vector<Injection> all;
    for (const auto& pair : pairs_) all.push_back({pair.module, LowRank{pair.A, pair.B}});
    return all;
  }
  void export_to(const Model&, std::span<const Module>, const std::string&,
                 const std::filesystem::path& folder) const override {
    std::vector<std::pair<std::string, at::Tensor>> tensors;
    for (std::size_t i = 0; i < exported(pairs_.size()); ++i) {
      tensors.emplace_back(pairs_[i].module + ".A", pairs_[i].A.detach());
      tensors.emplace_back(pairs_[i].module + ".B", pairs_[i].B.detach());
    }
    std::filesystem::create_directories(folder);
    hf::save_tensors(folder / kFile, tensors);
  }
  bool recognises(const std::filesystem::path& folder) const override {
    return std::filesystem::exists(folder / kFile);
  }
  void import_from(const std::filesystem::path& folder, const Model&, std::span<const Module> modules) override {
    const hf::SafetensorsFile file(folder / kFile);
    pairs_.clear();
    for (const auto& module : modules) {
      const auto *A = file.find(module.name + ".A"), *B = file.find(module.name + ".B");
      if (!A || !B) continue;
      pairs_.push_back({module.name, hf::load_tensor(*A, DType::f32).requires_grad_(true),
                        hf::load_tensor(*B, DType::f32).requires_grad_(true)});
    }
  }

 protected:
  struct Pair {
    std::string module;
    at::Tensor A, B;
  };
  virtual std::int64_t rank_of(double rank) const { return rank == 0 ? kRank : static_cast<std::int64_t>(rank); }
  virtual std::vector<std::int64_t> shape_of_A(const Module& module, std::int64_t rank) const {
    return {rank, module.in};
  }
  virtual at::Tensor values(std::vector<std::int64_t> shape, const at::Generator& generator) const {
    return at::randn(shape, generator, at::kFloat).mul_(0.1);
  }
  virtual at::Tensor start_of_B(std::vector<std::int64_t> shape, const at::Generator&) const {
    return at::zeros(shape);
  }
  virtual std::size_t exported(std::size_t pairs) const { return pairs; }
  virtual void look_at(const Model&, const Module&) {}
  std::vector<Pair> pairs_;
};

class ChangesTheBase final : public Pairs {
  void look_at(const Model& model, const Module& module) override { model.base(module.name).first.mul_(1.001); }
};
class LayoutDisagrees final : public Pairs {
  std::vector<std::int64_t> shape_of_A(const Module& module, std::int64_t rank) const override {
    return {module.in, rank};
  }
};
class GlobalGenerator final : public Pairs {
  at::Tensor values(std::vector<std::int64_t> shape, const at::Generator&) const override {
    return at::randn(shape).mul_(0.1);
  }
};
class LosesATensor final : public Pairs {
  std::size_t exported(std::size_t pairs) const override { return pairs - 1; }
};
class GivesCopies final : public Pairs {
  at::Tensor parameter(Index index) override { return Pairs::parameter(index).detach().clone().requires_grad_(true); }
};
class InjectsCopies final : public Pairs {
  std::vector<Injection> injections() override {
    std::vector<Injection> all;
    for (const auto& pair : pairs_)
      all.push_back({pair.module, LowRank{pair.A.detach().clone(), pair.B.detach().clone()}});
    return all;
  }
};
class IgnoresRank final : public Pairs {  // declared RankAware
  std::int64_t rank_of(double) const override { return kRank; }
};
class BeginsElsewhere final : public Pairs {
  at::Tensor start_of_B(std::vector<std::int64_t> shape, const at::Generator& generator) const override {
    return values(shape, generator);
  }
};
class LayoutFollowsCreate final : public Pairs {  // what a node was created with stays with layout()
  std::int64_t rank_of(double rank) const override {
    return rank != 0 || pairs_.empty() ? Pairs::rank_of(rank) : kRank + 1;
  }
};
class ChainsItsSeeds final : public Pairs {  // the second create() goes on where the first ended
  void create(const Model& model, std::span<const Module> modules, double rank, std::uint64_t seed) override {
    Pairs::create(model, modules, rank, seed + made_++);
  }
  std::uint64_t made_ = 0;
};
class RecognisesAll final : public Pairs {
  bool recognises(const std::filesystem::path&) const override { return true; }
};
class TakesAnyChannel final : public Pairs {
  void receive(Model&, const Download&) override {}
};
// What it learns beyond its parameters stays with the node: each receives another sign.
class HidesAPart final : public Pairs {
  std::vector<Injection> injections() override {
    auto all = Pairs::injections();
    for (auto& one : all) std::get<LowRank>(one.what).scale = scale_;
    scale_ = 0.5;  // as the first call finds it, and as later ones do
    return all;
  }
  double scale_ = 1;
};

class LeaksPairs final : public Pairs {
  void create(const Model& model, std::span<const Module> modules, double rank, std::uint64_t seed) override {
    Pairs::create(model, modules, rank, seed);
    lost_ = new std::vector<float>(4096);
  }
  std::vector<float>* lost_ = nullptr;
};

}  // namespace planted

HANSA_PLUGIN(org_hansa_planted_adapters, "0.1.0") {
  using namespace planted;
  plugin.vendor("Hansa's tests").license("Apache-2.0");
  plugin.add<Pairs>("right_pairs", "Low-rank pairs.").traits(HANSA_TRAIT_RANK_AWARE).groups("lora");
  plugin.add<ChangesTheBase>("changes_the_base", "Writes to a tensor of the base.");
  plugin.add<LayoutDisagrees>("layout_disagrees", "Its layout turns A round.");
  plugin.add<GlobalGenerator>("global_generator_pairs", "Draws from the global generator.");
  plugin.add<LosesATensor>("loses_a_tensor", "Exports all pairs but one.");
  plugin.add<GivesCopies>("gives_copies", "parameter() is a copy.");
  plugin.add<InjectsCopies>("injects_copies", "The model gets copies.");
  plugin.add<IgnoresRank>("ignores_rank", "RankAware, and is not.").traits(HANSA_TRAIT_RANK_AWARE);
  plugin.add<BeginsElsewhere>("begins_elsewhere", "Both factors begin at random.");
  plugin.add<LayoutFollowsCreate>("layout_follows_create", "Its layout is another one once it was created.");
  plugin.add<ChainsItsSeeds>("chains_its_seeds", "A second create() with the same seed gives something else.");
  plugin.add<RecognisesAll>("recognises_all", "Every folder is its own.");
  plugin.add<TakesAnyChannel>("takes_any_channel", "Ignores channels that it does not know.");
  plugin.add<LeaksPairs>("leaks_pairs", "Loses 16 kB with each create().");
  plugin.add<HidesAPart>("hides_a_part", "Its scale depends on how often it was asked.");
}
