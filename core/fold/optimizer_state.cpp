#include "fold/optimizer_state.hpp"

#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include "tensor/bridge.hpp"

namespace hansa::fold {
namespace {

constexpr std::string_view kChannel = "optimizer";

}  // namespace

OptimizerState::OptimizerState(const Layout& parameters, const ServerOptimizer& optimizer, const FoldFiles& files) {
  PacketContents contents;
  PacketChannel channel{std::string(kChannel), {}};
  for (const auto& parameter : parameters.tensors) {
    auto& specs = specs_[parameter.name];
    for (auto spec : optimizer.state(parameter)) {
      spec.name = fmt::format("{}/{}", parameter.name, spec.name);
      channel.entries.push_back({spec.name, raw_code(DType::f32, spec.shape)});
      specs.push_back(std::move(spec));
    }
  }
  if (channel.entries.empty()) return;
  contents.channels.push_back(std::move(channel));
  next_ = std::make_unique<PacketFileWriter>(files.next_state, std::move(contents), files.durability);
  for (const auto& entry : next_->plan().contents().channels[0].entries) leaves_[entry.name] = &entry.code;
  if (std::filesystem::exists(files.base_state)) last_ = std::make_unique<MappedPacket>(files.base_state);
}

std::vector<at::Tensor> OptimizerState::load(const std::string& parameter) const {
  std::vector<at::Tensor> state;
  for (const auto& spec : specs_.at(parameter))
    // Absent also after the run went on with another optimiser, which starts as at the beginning.
    state.push_back(last_ && last_->find(kChannel, spec.name) ? last_->tensor(kChannel, spec.name).clone()
                                                              : at::zeros(spec.shape, at::kFloat));
  return state;
}

void OptimizerState::store(const std::string& parameter, const std::vector<at::Tensor>& state) {
  const auto& specs = specs_.at(parameter);
  for (std::size_t i = 0; i < specs.size(); ++i)
    next_->put(*leaves_.at(specs[i].name), 0, bytes_of(state.at(i).contiguous()));
  stored_[parameter] = true;
}

std::optional<PacketFile> OptimizerState::finish() {
  if (!next_) return std::nullopt;
  for (const auto& [parameter, specs] : specs_) {
    if (!stored_.contains(parameter)) store(parameter, load(parameter));
  }
  return next_->finish();
}

}  // namespace hansa::fold
