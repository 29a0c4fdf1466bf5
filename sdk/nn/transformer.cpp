#include "nn/transformer.hpp"

#include <deque>
#include <map>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>
#include <ATen/TensorOperators.h>
#include <fmt/format.h>

#include "base/error.hpp"
#include "nn/fast/blocks.hpp"
#include "nn/layers.hpp"
#include "nn/recompute.hpp"

namespace hansa::nn {

namespace {

at::Tensor norm(const NormSpec& spec, const Place* place, const at::Tensor& x) {
  switch (spec.form) {
    case NormSpec::Form::None: return x;
    case NormSpec::Form::Rms: return rms_norm(*place, x, spec.epsilon);
    case NormSpec::Form::RmsPlusOne: return rms_norm_plus_one(*place, x, spec.epsilon);
    case NormSpec::Form::Layer: return place ? layer_norm(*place, x, spec.epsilon) : layer_norm(x, spec.epsilon);
  }
  return x;
}

at::Tensor activated(Activation activation, const at::Tensor& x) {
  switch (activation) {
    case Activation::Silu: return at::silu(x);
    case Activation::Gelu: return at::gelu(x);
    case Activation::GeluTanh: return at::gelu(x, "tanh");
    case Activation::Relu: return at::relu(x);
  }
  return x;
}

struct Projected {  // [batch, length, heads, dim]
  at::Tensor query, key, value;
};

Projected project(const AttentionSpec& spec, const BlockPlaces& places, const at::Tensor& x, Dropout& dropout) {
  const auto& heads = spec.heads;
  const auto rows = x.size(0), length = x.size(1);
  const auto by_head = [&](const at::Tensor& y, std::int64_t count) {
    return y.reshape({rows, length, count, heads.dim});
  };
  auto first = linear(*places.query, x, dropout);
  if (spec.inputs == AttentionSpec::Inputs::Apart)
    return {by_head(first, heads.query), by_head(linear(*places.key, x, dropout), heads.key_value),
            by_head(linear(*places.value, x, dropout), heads.key_value)};
  if (spec.inputs == AttentionSpec::Inputs::PerHead) {
    const auto all = first.view({rows, length, heads.query, 3, heads.dim});
    return {all.select(3, 0), all.select(3, 1), all.select(3, 2)};
  }
  const auto q = heads.query_width(), kv = heads.key_value_width();
  return {by_head(first.narrow(-1, 0, q), heads.query), by_head(first.narrow(-1, q, kv), heads.key_value),
          by_head(first.narrow(-1, q + kv, kv), heads.key_value)};
}

// Rows [count, …] before those of each sequence [batch, length, …].
at::Tensor before_each(const at::Tensor& front, const at::Tensor& x) {
  auto sizes = x.sizes().vec();
  sizes[1] = front.size(0);
  return at::cat({front.to(x.scalar_type()).unsqueeze(0).expand(sizes), x}, 1);
}

at::Tensor attend(const AttentionSpec& spec, const BlockPlaces& places, const at::Tensor& x, const BlockPass& at) {
  auto& dropout = at.pass.dropout;
  auto [query, key, value] = project(spec, places, x, dropout);
  query = norm(spec.query_norm, places.query_norm, query);
  key = norm(spec.key_norm, places.key_norm, key);
  if (at.turn) {
    query = Rope::rotate(query, *at.turn);
    key = Rope::rotate(key, *at.turn);
  }
  if (at.front.keys > 0) {
    const auto& prefix = *places.attention->injected.prefix;
    key = before_each(prefix.keys, key);
    value = before_each(prefix.values, value);
  }
  auto seen = attention(query, key, value, spec, at.visible, dropout, at.pass.cache, at.layer);
  return linear(*places.output, seen, dropout);
}

at::Tensor feed_forward(const MlpSpec& spec, const BlockPlaces& places, const at::Tensor& x, Dropout& dropout) {
  auto up = linear(*places.up, x, dropout);
  if (places.gate)
    return linear(*places.down, activated(spec.activation, linear(*places.gate, x, dropout)) * up, dropout);
  if (!spec.joined) return linear(*places.down, activated(spec.activation, up), dropout);
  const auto inner = up.size(-1) / 2;
  return linear(*places.down, activated(spec.activation, up.narrow(-1, 0, inner)) * up.narrow(-1, inner, inner),
                dropout);
}

// For each token the length of its text: packing changes no text's rotation.
at::Tensor text_lengths(const Pass& pass) {
  const auto& positions = pass.batch.positions;
  if (pass.cache || !pass.batch.segments.defined())
    return (positions.amax(1, true) + 1).expand(positions.sizes()).contiguous();
  const auto& segments = pass.batch.segments;
  const auto together = segments.unsqueeze(1).eq(segments.unsqueeze(2));
  const auto lengths = (positions.unsqueeze(1) * together).amax(2) + 1;
  return at::where(segments.eq(Front::kSegment), lengths.amax(1, true), lengths);
}

// What a cache holds was turned for the length of its time.
void refuse_crossing(const RopeSettings& settings, std::int64_t boundary, std::int64_t past, std::int64_t length) {
  if (past == 0 || length <= boundary) return;
  if (past > boundary && !std::holds_alternative<RopeSettings::Dynamic>(settings.scaling)) return;
  throw Error(fmt::format(
      "beyond {} tokens this model's rotary scaling turns the earlier ones otherwise too, and {} of them are "
      "held already: generate within {} tokens, or give all tokens at once",
      boundary, past, boundary));
}

}  // namespace

at::Tensor block(const BlockSpec& spec, const BlockPlaces& places, const at::Tensor& x, const BlockPass& at) {
  auto& dropout = at.pass.dropout;
  const auto attended = [&](const at::Tensor& input) {
    auto y = attend(spec.attention, places, input, at);
    return dropout.apply(norm(spec.after_attention, places.after_attention, y), spec.dropout);
  };
  const auto fed = [&](const at::Tensor& input) {
    auto y = feed_forward(spec.mlp, places, input, dropout);
    return dropout.apply(norm(spec.after_mlp, places.after_mlp, y), spec.dropout);
  };
  const auto attention_norm = [&](const at::Tensor& y) { return norm(spec.attention_norm, places.attention_norm, y); };
  const auto mlp_norm = [&](const at::Tensor& y) { return norm(spec.mlp_norm, places.mlp_norm, y); };
  switch (spec.order) {
    case BlockSpec::Order::NormFirst: {
      auto middle = x + attended(attention_norm(x));
      return middle + fed(mlp_norm(middle));
    }
    case BlockSpec::Order::NormLast: {
      auto middle = attention_norm(x + attended(x));
      return mlp_norm(middle + fed(middle));
    }
    case BlockSpec::Order::Parallel: return x + attended(attention_norm(x)) + fed(mlp_norm(x));
  }
  return x;
}

Transformer::Transformer(Architecture architecture) : architecture_(std::move(architecture)) {
  for (const auto& settings : architecture_.spec.ropes) ropes_.emplace_back(settings);
}
Transformer::~Transformer() = default;

void Transformer::bind(Places& places) {
  const auto at = [&](const std::string& name) -> const Place* { return name.empty() ? nullptr : &places.at(name); };
  const auto& spec = architecture_.spec;
  tokens_ = at(spec.embedding.tokens);
  places.takes_prompt(spec.embedding.tokens);
  positions_ = at(spec.embedding.positions);
  types_ = at(spec.embedding.types);
  embedding_norm_ = at(spec.embedding.norm.module);
  project_in_ = at(spec.embedding.project);
  final_norm_ = at(spec.final_norm.module);
  project_out_ = at(spec.project);
  blocks_.clear();
  for (const auto& one : spec.blocks)
    blocks_.push_back({.attention_norm = at(one.attention_norm.module),
                       .after_attention = at(one.after_attention.module),
                       .mlp_norm = at(one.mlp_norm.module),
                       .after_mlp = at(one.after_mlp.module),
                       .attention = at(one.attention.module),
                       .query = at(one.attention.query),
                       .key = at(one.attention.key),
                       .value = at(one.attention.value),
                       .output = at(one.attention.output),
                       .query_norm = at(one.attention.query_norm.module),
                       .key_norm = at(one.attention.key_norm.module),
                       .gate = at(one.mlp.gate),
                       .up = at(one.mlp.up),
                       .down = at(one.mlp.down)});
  fast_.clear();
  const auto workspace = std::make_shared<fast::Workspace>();
  for (const auto& one : spec.blocks)
    fast_.push_back(fast::Block::plain_form(one).empty() ? std::make_unique<fast::Block>(one, places, workspace)
                                                         : nullptr);
}

std::int64_t Transformer::virtual_tokens() const {
  if (const auto& prompt = tokens_->injected.prompt) return prompt->rows.size(0);
  const auto* attention = blocks_.empty() ? nullptr : blocks_.front().attention;  // all have one, or none
  return attention && attention->injected.prefix ? attention->injected.prefix->keys.size(0) : 0;
}

// Positions and segments of all that passes through the blocks; positions of the text start after the front.
Batch Transformer::with_front(const Pass& pass, const Front& front) const {
  auto batch = pass.batch;
  batch.positions = batch.positions + front.count;
  if (!tokens_->injected.prompt || (pass.cache && pass.cache->held() > 0)) return batch;
  const auto rows = batch.tokens.size(0);
  const auto first = at::arange(front.count, batch.positions.options()).unsqueeze(0).expand({rows, front.count});
  batch.positions = at::cat({first, batch.positions}, 1);
  if (!batch.segments.defined()) return batch;
  if (!architecture_.spec.causal && batch.segments.max().item<std::int64_t>() > 0)
    throw Error("a soft prompt sees all of its row in a model that is not causal, and a row holds several texts");
  batch.segments =
      at::cat({at::full({rows, front.count}, Front::kSegment, batch.segments.options()), batch.segments}, 1);
  return batch;
}

at::Tensor Transformer::embed(const Pass& pass) const {
  const auto& spec = architecture_.spec.embedding;
  auto x = embedding(*tokens_, pass.batch.tokens, pass.compute);
  if (spec.scale != 1) x = x * at::scalar_tensor(spec.scale, x.options());
  if (pass.batch.positions.size(1) > x.size(1)) x = before_each(tokens_->injected.prompt->rows, x);
  if (project_in_) x = linear(*project_in_, x, pass.dropout);
  if (positions_) x = x + embedding(*positions_, pass.batch.positions + spec.position_offset, pass.compute);
  if (types_) x = x + embedding(*types_, at::zeros_like(pass.batch.positions), pass.compute);
  return pass.dropout.apply(norm(spec.norm, embedding_norm_, x), spec.dropout);
}

std::vector<Rope::Rows> Transformer::turns(const Pass& pass) const {
  at::Tensor lengths;
  const auto past = pass.cache ? pass.cache->held() : 0;
  for (const auto& rope : ropes_) {
    const auto boundary = rope.settings().boundary();
    if (!boundary) continue;
    if (!lengths.defined()) lengths = text_lengths(pass);
    refuse_crossing(rope.settings(), *boundary, past, past + pass.batch.positions.size(1));
  }
  std::vector<Rope::Rows> all;
  for (const auto& rope : ropes_)
    all.push_back(rope.rows(pass.batch.positions, pass.compute, rope.settings().boundary() ? lengths : at::Tensor()));
  return all;
}

at::Tensor Transformer::forward(const Pass& pass) {
  const auto x = forward_with_prompt(pass);
  const auto length = pass.batch.tokens.size(1);
  return x.narrow(1, x.size(1) - length, length);
}

at::Tensor Transformer::forward_with_prompt(const Pass& given) {
  const auto& spec = architecture_.spec;
  Front front{.count = virtual_tokens()};
  if (!tokens_->injected.prompt && (!given.cache || given.cache->held() == 0)) front.keys = front.count;
  const auto batch = front.count > 0 ? with_front(given, front) : given.batch;
  const Pass pass{batch, given.compute, given.dropout, given.cache, given.kernels, given.recompute};
  const auto turned = turns(pass);
  std::deque<std::pair<std::optional<std::int64_t>, Visibility>> visibilities;  // by window
  const auto visible = [&](const AttentionSpec& attention) -> const Visibility& {
    for (const auto& [window, one] : visibilities)
      if (window == attention.window) return one;
    return visibilities
        .emplace_back(attention.window, visibility(attention, spec.causal ? Sees::Past : Sees::All, pass.batch,
                                                   pass.cache, pass.compute, pass.dropout, front))
        .second;
  };
  auto x = embed(pass);
  std::map<std::optional<std::int64_t>, std::shared_ptr<const fast::Limits>> limits;  // by window
  const bool one_more = pass.cache && pass.cache->held() > 0;
  const auto known = [&](std::size_t i) {
    return pass.kernels == Kernels::Fast && front.count == 0 && fast_[i] && fast_[i]->plain_now(pass.dropout).empty() &&
           !(pass.cache && pass.batch.segments.defined());
  };
  const auto steps = [&](std::size_t i) {
    return one_more && x.size(1) == 1 && x.size(0) <= fast::Block::kStepRows && known(i);
  };
  const auto quickly = [&](std::size_t i) -> std::shared_ptr<const fast::Limits> {
    if (one_more || !known(i)) return {};
    const auto& attention = spec.blocks[i].attention;
    auto found = limits.find(attention.window);
    if (found == limits.end())
      found = limits.emplace(attention.window, fast::limits_of(pass.batch, attention, spec.causal)).first;
    return found->second;
  };
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    const auto& attention = spec.blocks[i].attention;
    if (steps(i)) {
      x = fast_[i]->forward_step(x, {.batch = x.size(0),
                                     .length = 1,
                                     .turn = attention.rope ? &turned[*attention.rope] : nullptr,
                                     .cache = pass.cache,
                                     .layer = static_cast<std::int64_t>(i)});
      continue;
    }
    if (auto seen = quickly(i)) {
      x = fast_[i]->forward(x, {.batch = x.size(0),
                                .length = x.size(1),
                                .turn = attention.rope ? &turned[*attention.rope] : nullptr,
                                .limits = std::move(seen),
                                .recompute = pass.recompute,
                                .cache = pass.cache,
                                .layer = static_cast<std::int64_t>(i)});
      continue;
    }
    const BlockPass at{pass, attention.rope ? &turned[*attention.rope] : nullptr, visible(attention),
                       static_cast<std::int64_t>(i), front};
    const bool again = pass.recompute && at::GradMode::is_enabled() && !pass.cache;
    x = again ? recomputed_block(spec.blocks[i], blocks_[i], x, at) : block(spec.blocks[i], blocks_[i], x, at);
  }
  x = norm(spec.final_norm, final_norm_, x);
  return project_out_ ? linear(*project_out_, x, pass.dropout) : x;
}

TransformerModel::TransformerModel(std::string name, std::vector<std::string> model_types,
                                   Architecture (*architecture)(const std::filesystem::path& checkpoint), Host* host)
    : CausalModel(
          std::move(name), std::move(model_types),
          [architecture](const std::filesystem::path& checkpoint) -> std::unique_ptr<Decoder> {
            return std::make_unique<Transformer>(architecture(checkpoint));
          },
          host) {}

}  // namespace hansa::nn
