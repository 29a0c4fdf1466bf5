// The modules of a model with their frozen weights and what an adapter put into them. The layers of layers.hpp compute
// with a Place; a model keeps one Places for all. Training thread only. Throws hansa::Error naming the module.
#pragma once
#include <map>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <hansa/model.hpp>

namespace hansa::nn {

struct Place {
  Module module;
  at::Tensor weight, bias;  // the base's, frozen, in the compute type; [out, in] whatever the checkpoint stores
  std::variant<std::monostate, LowRank, Replace> injected;
  std::vector<LowRank> fixed;  // beside an injected pair: changes of the frozen weight, computed in fp32
};

class Places {
 public:
  Places() = default;
  explicit Places(std::vector<Module> modules);
  // References stay valid for the life of this object.
  Place& at(std::string_view module);
  const Place& at(std::string_view module) const;
  std::span<Place> all() { return places_; }
  std::span<const Place> all() const { return places_; }

  // Replaces all earlier injections. Checks kinds, shapes and ranks of all of them before it changes anything.
  void inject(std::span<const Injection>);
  // What the place computes with now, fp32: the base's weight and bias with the injection folded in.
  static std::pair<at::Tensor, at::Tensor> folded(const Place&, const at::Tensor& base_weight,
                                                  const at::Tensor& base_bias);

 private:
  std::vector<Place> places_;
  std::map<std::string, std::size_t, std::less<>> index_;
};

// "1 x 3": for messages.
std::string shape_text(const at::Tensor&);
std::vector<std::int64_t> weight_shape(const Module&);  // [out, in]; embedding [in, out] (rows of out); norm [out]

}  // namespace hansa::nn
