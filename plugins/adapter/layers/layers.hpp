// A part of the base itself: see layers.cpp and README.md.
#pragma once
#include <adapters/module_adapter.hpp>

namespace hansa::layers {

struct Params {
  std::vector<std::string> targets{"all"};
  std::vector<std::int64_t> blocks{-1};
  std::vector<std::string> outside{};
};

class Layers final : public adapters::ModuleAdapter {
 public:
  explicit Layers(Params params) : ModuleAdapter("layers", params.outside), params_(std::move(params)) {}

 protected:
  std::vector<adapters::Part> parts(std::span<const Module>, double rank) const override;

 private:
  Params params_;
};

}  // namespace hansa::layers
