// Test plugins that say in a file where a node's process is: `<marks>/<process id>` holds "train", "trained", "encode" or "encoded".
// So a test can kill a node in a stage that leaves no other trace. The trainer keeps state: a turn that is lost or counted
// twice shows in the sum.
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

#include <ATen/core/grad_mode.h>
#include <hansa/compressor.hpp>
#include <hansa/plugin.hpp>
#include <hansa/trainer.hpp>

namespace hansa {
namespace {

struct Way {
  std::string marks;
  Seconds takes{0.03};
};

void mark(const Way& way, const char* where) {
  const auto file = std::filesystem::path(way.marks) / std::to_string(getpid());
  std::filesystem::create_directories(way.marks);
  std::ofstream(file.string() + ".new") << where;
  std::filesystem::rename(file.string() + ".new", file);
}
void pass(const Way& way) { std::this_thread::sleep_for(std::chrono::duration<double>(way.takes.value)); }

// Adds how often it was applied before, plus one.
class MarkedTrainer final : public Trainer {
 public:
  explicit MarkedTrainer(Way way) : way_(std::move(way)) {}
  std::uint64_t steps(std::uint64_t) const override { return 1; }
  TrainResult train(Model&, Adapter& adapter, DataSource&, const TrainContext& context) override {
    const at::NoGradGuard no_grad;
    mark(way_, "train");
    pass(way_);
    ++rounds_;
    for (Index i = 0; i < context.exchange.roles.size(); ++i)
      adapter.parameter(i).add_(static_cast<double>(rounds_ + i));
    mark(way_, "trained");
    return {1, 1, 1, {{"loss", 1.0}}};
  }
  std::uint32_t state_version() const override { return 1; }
  void save(StateWriter& out) const override { out.put("rounds", std::to_string(rounds_)); }
  void load(const StateReader& in, std::uint32_t) override { rounds_ = std::stoll(in.bytes("rounds")); }

 private:
  Way way_;
  std::int64_t rounds_ = 0;
};

// The tensor as it is.
class MarkedCodec final : public Stateless<Compressor> {
 public:
  explicit MarkedCodec(Way way) : way_(std::move(way)) {}
  SizePlan plan(const TensorSpec& in) const override {
    const auto bytes = static_cast<std::uint64_t>(in.elements()) * size_of(in.dtype);
    return {{in}, bytes, bytes};
  }
  Encoded encode(const at::Tensor& in, Seeds) const override {
    mark(way_, "encode");
    pass(way_);
    mark(way_, "encoded");
    return {{in.contiguous()}, ""};
  }
  at::Tensor decode(const Encoded& encoded, const TensorSpec& out, std::uint64_t) const override {
    return encoded.parts.at(0).view(out.shape);
  }

 private:
  Way way_;
};

}  // namespace
}  // namespace hansa

HANSA_PLUGIN(org_hansa_test_waymarks, "0.1.0") {
  using namespace hansa;
  plugin.vendor("Hansa").license("Apache-2.0");
  plugin.add<MarkedTrainer, Way>("marked", "Says that it trains; for tests.")
      .param(&Way::marks, "marks", "Folder for what it says.", required())
      .param(&Way::takes, "takes", "How long a turn lasts.");
  plugin.add<MarkedCodec, Way>("marked_codec", "Says that it encodes; for tests.")
      .traits(HANSA_TRAIT_LOSSLESS | HANSA_TRAIT_UNBIASED | HANSA_TRAIT_NORM_SAFE | HANSA_TRAIT_FIXED_SUPPORT)
      .param(&Way::marks, "marks", "Folder for what it says.", required())
      .param(&Way::takes, "takes", "How long each tensor takes.");
}
