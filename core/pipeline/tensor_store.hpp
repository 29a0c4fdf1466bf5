// Named tensors that a node keeps for itself between rounds: error memory, the personal part of an adapter. Saved and loaded
// as a component's state, pending until the round is applied. One thread.
#pragma once
#include <map>
#include <string>

#include <hansa/component.hpp>

namespace hansa::pipeline {

class TensorStore final : public Component {
 public:
  std::uint32_t state_version() const override { return 1; }
  void save(StateWriter&) const override;
  void load(const StateReader&, std::uint32_t version) override;

  // Undefined when nothing is kept under this name, or something of another shape: ranks may change between runs.
  at::Tensor find(const std::string& name, at::IntArrayRef shape) const;
  void set(const std::string& name, at::Tensor value) { tensors_[name] = std::move(value); }
  void clear() { tensors_.clear(); }
  const std::map<std::string, at::Tensor>& all() const { return tensors_; }

 private:
  std::map<std::string, at::Tensor> tensors_;
};

}  // namespace hansa::pipeline
