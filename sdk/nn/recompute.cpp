#include "nn/recompute.hpp"

#include <algorithm>
#include <memory>
#include <vector>

#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include "base/error.hpp"

namespace hansa::nn {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Everything that a second pass needs, in its own hands: the first one's is gone by then.
struct Again final : torch::CustomClassHolder {
  Again(const BlockSpec& block_spec, const BlockPlaces& block_places, const BlockPass& at)
      : spec(block_spec),
        places(block_places),
        batch(at.pass.batch),
        compute(at.pass.compute),
        dropout(at.pass.dropout.copy()),
        turn(at.turn ? std::optional(*at.turn) : std::nullopt),
        visible(at.visible),
        layer(at.layer),
        front(at.front) {}

  at::Tensor pass(const at::Tensor& x, Dropout& masks) {
    const Pass one{batch, compute, masks, nullptr, Kernels::Plain, false};
    return block(spec, places, x, {one, turn ? &*turn : nullptr, visible, layer, front});
  }

  const BlockSpec& spec;  // the model's, like the places: they outlive a graph
  const BlockPlaces& places;
  Batch batch;
  at::ScalarType compute;
  Dropout dropout;  // as it stood before the first pass
  std::optional<Rope::Rows> turn;
  Visibility visible;
  std::int64_t layer;
  Front front;
  variable_list parameters;
};

void add(variable_list& into, std::initializer_list<at::Tensor> tensors) {
  for (const auto& one : tensors)
    if (one.defined() && one.requires_grad()) into.push_back(one);
}

// What trains in these places.
variable_list parameters_of(const BlockPlaces& places) {
  variable_list all;
  for (const auto* place : {places.attention_norm, places.after_attention, places.mlp_norm, places.after_mlp,
                            places.attention, places.query, places.key, places.value, places.output, places.query_norm,
                            places.key_norm, places.gate, places.up, places.down}) {
    if (!place) continue;
    const auto& injected = place->injected;
    if (const auto& one = injected.low_rank) add(all, {one->A, one->B, one->inner, one->outer, one->magnitude});
    if (const auto& one = injected.replace) add(all, {one->weight, one->bias});
    if (const auto& one = injected.rescale) add(all, {one->by});
    if (const auto& one = injected.bottleneck) add(all, {one->down, one->down_bias, one->up, one->up_bias});
    if (const auto& one = injected.prefix) add(all, {one->keys, one->values});
  }
  return all;
}

class RecomputedBlock : public torch::autograd::Function<RecomputedBlock> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, at::TensorList,
                            const c10::intrusive_ptr<Again>& again, Dropout* dropout) {
    context->save_for_backward({x});
    context->saved_data["again"] = c10::IValue::make_capsule(again);
    return again->pass(x, *dropout);
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto capsule = context->saved_data["again"].toCapsule();
    auto& again = static_cast<Again&>(*capsule);
    const bool wants_x = context->needs_input_grad(0);
    const auto x = context->get_saved_variables()[0].detach().requires_grad_(wants_x);
    auto inputs = again.parameters;
    const auto now = parameters_of(again.places);
    if (!std::ranges::equal(now, inputs, [](const auto& a, const auto& b) { return a.is_same(b); }))
      throw Error("with recompute = true the injections of a pass must stand until its backward pass");
    if (wants_x) inputs.insert(inputs.begin(), x);
    variable_list found;
    {
      const at::AutoGradMode with_graph(true);
      auto masks = again.dropout.copy();
      found = torch::autograd::grad({again.pass(x, masks)}, inputs, {gradients[0]}, /*retain_graph=*/false,
                                    /*create_graph=*/false, /*allow_unused=*/true);
    }
    if (!wants_x) found.insert(found.begin(), at::Tensor());
    found.resize(found.size() + 2);  // of `again` and `dropout`
    return found;
  }
};

}  // namespace

at::Tensor recomputed_block(const BlockSpec& spec, const BlockPlaces& places, const at::Tensor& x,
                            const BlockPass& at) {
  auto again = c10::make_intrusive<Again>(spec, places, at);
  again->parameters = parameters_of(places);
  if (!x.requires_grad() && again->parameters.empty()) return block(spec, places, x, at);
  const at::TensorList parameters(again->parameters);
  return RecomputedBlock::apply(x, parameters, again, &at.pass.dropout);
}

}  // namespace hansa::nn
