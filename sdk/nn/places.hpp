// The modules of a model with their frozen weights and what an adapter put into them. The layers of layers.hpp compute
// with a Place; a model keeps one Places for all. Training thread only. Throws hansa::Error naming the module.
#pragma once
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <hansa/model.hpp>
#include <quantised/stored_weight.hpp>

namespace hansa::nn {

// What stands in a place beside the base's own weights: at most one of each, and changes of the frozen weight. With a
// module's weight and bias W and b, or those of `replace`, a linear place computes
//   u = rescale (Input) ? by * x : x
//   y = W u + b, plus low_rank, plus fixed; with a magnitude the rows of W and its pairs have that length
//   y = rescale (Output) ? by * y : y
//   y = y + bottleneck(y)
// A path that knows the plain pair alone asks only_low_rank() and leaves all else to layers.hpp.
struct Injected {
  std::optional<LowRank> low_rank;  // the one that trains
  std::vector<LowRank> fixed;       // only beside it: changes of the frozen weight, plain, computed in fp32
  std::optional<Replace> replace;
  std::optional<Rescale> rescale;
  std::optional<Bottleneck> bottleneck;
  std::optional<Prompt> prompt;  // for the transformer, not for layers.hpp
  std::optional<Prefix> prefix;  // the same
  bool nothing() const { return !low_rank && !replace && !beyond(); }
  // Nothing, or a plain pair y += scale * B A dropout(x), with `fixed` beside it or not.
  bool only_low_rank() const {
    return !replace && !beyond() && (!low_rank || (!low_rank->magnitude.defined() && !low_rank->inner.defined()));
  }

 private:
  bool beyond() const { return rescale || bottleneck || prompt || prefix; }
};

struct Place {
  Module module;
  at::Tensor weight, bias;         // the base's, frozen, in the compute type; [out, in] whatever the checkpoint stores
  quantised::StoredWeight stored;  // instead of `weight`, in the linear modules of a quantised base
  Injected injected;
};

class Places {
 public:
  Places() = default;
  explicit Places(std::vector<Module> modules, at::Device device = at::kCPU);
  // References stay valid for the life of this object.
  Place& at(std::string_view module);
  const Place& at(std::string_view module) const;
  std::span<Place> all() { return places_; }
  std::span<const Place> all() const { return places_; }

  // The embedding of tokens, which takes a Prompt. Without this call none does.
  void takes_prompt(std::string module) { prompt_module_ = std::move(module); }
  // Replaces all earlier injections. Checks kinds, shapes and ranks of all of them before it changes anything; then brings
  // their tensors to the device, in place.
  void inject(std::span<const Injection>);
  // Tokens that a Prompt and Prefixes put before each row: by so many the longest sequence is shorter.
  std::int64_t virtual_tokens() const;
  // Throws where a weight and a bias cannot say what was injected.
  static void require_foldable(const Place&);
  // What the place computes with now, fp32, on the CPU as the base's weight and bias are: these with the injections folded
  // in. Throws as require_foldable().
  static std::pair<at::Tensor, at::Tensor> folded(const Place&, const at::Tensor& base_weight,
                                                  const at::Tensor& base_bias);

 private:
  std::vector<Place> places_;
  std::map<std::string, std::size_t, std::less<>> index_;
  std::string prompt_module_;
  at::Device device_ = at::kCPU;
};

// "1 x 3": for messages.
std::string shape_text(const at::Tensor&);
std::vector<std::int64_t> weight_shape(const Module&);  // [out, in]; embedding [in, out] (rows of out); norm [out]

}  // namespace hansa::nn
