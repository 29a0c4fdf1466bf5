#include "nn/fast/blocks.hpp"

#include <algorithm>
#include <set>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <torch/csrc/autograd/custom_function.h>

#include "base/error.hpp"
#include "nn/fast/passes.hpp"

namespace hansa::nn::fast {

std::shared_ptr<const Limits> limits_of(const Batch& batch, const AttentionSpec& spec, bool causal) {
  const auto rows = batch.tokens.size(0), length = batch.tokens.size(1);
  auto result = std::make_shared<Limits>();
  result->sequences = batch.segments.defined() ? rows : 1;
  const auto segments = batch.segments.defined() ? batch.segments.to(at::kCPU).contiguous() : at::Tensor();
  for (std::int64_t row = 0; row < result->sequences; ++row) {
    const auto* ids = segments.defined() ? segments.const_data_ptr<std::int64_t>() + row * length : nullptr;
    std::set<std::int64_t> seen;
    for (std::int64_t first = 0, last = 0; first < length; first = last) {
      while (last < length && (!ids || ids[last] == ids[first])) ++last;
      if (ids && !seen.insert(ids[first]).second) return nullptr;
      for (auto t = first; t < last; ++t) {
        auto low = first, high = causal ? t + 1 : last;
        if (spec.window) {
          low = std::max(low, t - *spec.window + 1);
          high = std::min(high, t + *spec.window);
        }
        result->low.push_back(static_cast<std::int32_t>(low));
        result->high.push_back(static_cast<std::int32_t>(high));
      }
    }
  }
  return result;
}

std::string_view Block::plain_form(const BlockSpec& spec) {
  const auto& attention = spec.attention;
  if (spec.order != BlockSpec::Order::NormFirst) return "its norms do not come first";
  for (const auto* norm : {&spec.attention_norm, &spec.mlp_norm})
    if (norm->form != NormSpec::Form::Rms) return "its norms are not the root of the mean square";
  for (const auto* norm : {&spec.after_attention, &spec.after_mlp, &attention.query_norm, &attention.key_norm})
    if (norm->form != NormSpec::Form::None) return "it has further norms";
  if (attention.inputs == AttentionSpec::Inputs::PerHead) return "queries, keys and values alternate head by head";
  if (attention.soft_cap != 0) return "its scores have a soft cap";
  if (spec.mlp.activation == Activation::Gelu) return "its activation is the exact gelu";
  if (spec.mlp.gate.empty() && !spec.mlp.joined) return "its feed-forward part has no gate";
  return {};
}

Curve curve_of(Activation activation) {
  if (activation == Activation::Silu) return Curve::Silu;
  return activation == Activation::Relu ? Curve::Relu : Curve::GeluTanh;
}

namespace {

std::vector<Place*> some(Places& places, std::initializer_list<std::string_view> names) {
  std::vector<Place*> result;
  for (const auto name : names)
    if (!name.empty()) result.push_back(&places.at(name));
  return result;
}
const Place* maybe(Places& places, const std::string& name) { return name.empty() ? nullptr : &places.at(name); }

}  // namespace

Block::Block(const BlockSpec& spec, Places& places, std::shared_ptr<Workspace> workspace)
    : spec_(spec),
      attention_norm_(&places.at(spec.attention_norm.module)),
      mlp_norm_(&places.at(spec.mlp_norm.module)),
      attention_(maybe(places, spec.attention.module)),
      matrices_{Joined(some(places, {spec.attention.query, spec.attention.key, spec.attention.value})),
                Joined(some(places, {spec.attention.output})), Joined(some(places, {spec.mlp.gate, spec.mlp.up})),
                Joined(some(places, {spec.mlp.down}))},
      workspace_(std::move(workspace)) {}

std::string_view Block::plain_now(const Dropout& dropout) const {
  if (dropout.enabled() && (spec_.dropout > 0 || spec_.attention.dropout > 0)) return "it has dropout";
  for (const auto* place : {attention_norm_, mlp_norm_, attention_})
    if (place && !place->injected.nothing()) return "something is injected into its norms or its attention";
  for (const auto* joined : {&matrices_.qkv, &matrices_.output, &matrices_.gate_up, &matrices_.down})
    for (const auto* place : joined->places()) {
      const auto& in = place->injected;
      if (!place->weight.defined()) return "its base is quantised";
      if (place->module.bias) return "its linear modules have a bias";
      if (place->weight.device().type() != at::kCPU) return "it is not on the CPU";
      if (!in.only_low_rank() || !in.fixed.empty()) return "it has injections other than low-rank pairs";
      if (in.low_rank && in.low_rank->dropout > 0 && dropout.enabled()) return "its low-rank pairs have dropout";
    }
  return {};
}

namespace {

// Rows of a job, shared out over the threads.
template <class Job>
void by_rows(std::int64_t rows, std::int64_t width, void (*pass)(const Job&, std::int64_t, std::int64_t),
             const Job& job) {
  const auto grain = std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(width, 1));
  at::parallel_for(0, rows, grain, [&](std::int64_t first, std::int64_t last) { pass(job, first, last); });
}

template <class T>
T* data(const at::Tensor& tensor) {
  return tensor.defined() ? static_cast<T*>(tensor.data_ptr()) : nullptr;
}

}  // namespace

struct Block::Run {
  Block& block;
  BlockOf of;
  at::Tensor cos, sin;
  std::shared_ptr<Buffers> saved;
  Pairs qkv, output, gate_up, down;
  at::ScalarType type = at::kFloat;
  std::uint64_t taken = 0;  // takes() after this pass's own

  std::int64_t rows() const { return of.batch * of.length; }
  std::int64_t width() const { return block.matrices_.qkv.in(); }
  const Heads& heads() const { return block.spec_.attention.heads; }
  std::int64_t inner_width() const { return block.matrices_.down.in(); }
  std::int64_t outer() const { return of.batch * heads().key_value; }
  Tiles tiles() const { return {heads(), block.spec_.attention.scale, of.batch, of.length, of.limits.get()}; }
  at::Tensor work(std::string_view name, at::IntArrayRef shape) {
    return block.workspace_->buffers.get(name, shape, type);
  }
  at::Tensor keep(std::string_view name, at::IntArrayRef shape) { return saved->get(name, shape, type); }
  at::Tensor keep_float(std::string_view name, at::IntArrayRef shape) { return saved->get(name, shape, at::kFloat); }
  // [rows, in + columns]
  at::Tensor joined_input(std::string_view name, const Joined& joined, const Pairs& pairs) {
    return work(name, {rows(), joined.in() + pairs.columns});
  }
  at::Tensor q() { return keep("q", {outer(), heads().group() * of.length, heads().dim}); }
  at::Tensor k() { return keep("k", {outer(), of.length, heads().dim}); }
  at::Tensor v() { return keep("v", {outer(), of.length, heads().dim}); }
  at::Tensor log_sum() { return keep_float("log_sum", {outer(), heads().group() * of.length}); }
  at::Tensor middle() { return keep("middle", {rows(), width()}); }
  at::Tensor gates() { return keep("gates", {rows(), 2 * inner_width()}); }
  at::Tensor seen() { return keep("seen", {rows(), heads().query_width() + output.columns}); }

  template <class T>
  HeadsJob<T> heads_job(const at::Tensor& by_row, std::int64_t column, const at::Tensor& by_head, std::int64_t count,
                        bool turned) const {
    HeadsJob<T> job{.rows = data<T>(by_row) + column,
                    .heads = data<T>(by_head),
                    .row_stride = by_row.stride(0),
                    .head_stride = heads().dim,
                    .count = count,
                    .group = count / heads().key_value,
                    .length = of.length,
                    .block = tiles().block(),
                    .dim = heads().dim};
    if (turned && cos.defined()) {
      job.cos = data<T>(cos);
      job.sin = data<T>(sin);
      job.turned = cos.size(-1);
      job.table_batch_stride = cos.size(0) == 1 ? 0 : of.length * job.turned;
    }
    return job;
  }

  // out's first columns = norm(x + add); sum = x + add where there is one.
  template <class T>
  void norm(const NormSpec& spec, const Place& place, const at::Tensor& x, const at::Tensor& add, const at::Tensor& sum,
            at::Tensor& out, const at::Tensor& scale) {
    by_rows(rows(), width(), passes<T>().norm,
            NormJob<T>{.x = data<T>(x),
                       .add = data<T>(add),
                       .sum = data<T>(sum),
                       .weight = data<T>(place.weight),
                       .out = data<T>(out),
                       .add_stride = width(),
                       .out_stride = out.stride(0),
                       .width = width(),
                       .scale = data<float>(scale),
                       .epsilon = spec.epsilon});
  }
  template <class T>
  void norm_back(const Place& place, const at::Tensor& g, const at::Tensor& x, const at::Tensor& through,
                 at::Tensor& dx, const at::Tensor& scale) {
    const NormBackJob<T> job{.g = data<T>(g),
                             .x = data<T>(x),
                             .weight = data<T>(place.weight),
                             .through = data<T>(through),
                             .dx = data<T>(dx),
                             .g_stride = g.stride(0),
                             .width = width(),
                             .scale = data<float>(scale)};
    const auto threads = static_cast<std::int64_t>(at::get_num_threads());
    const auto sums = block.workspace_->buffers.get("norm sums", {threads, width()}, at::kFloat);
    at::parallel_for(0, rows(), 16, [&](std::int64_t first, std::int64_t last) {
      passes<T>().norm_back(job, {.scratch = data<float>(sums) + at::get_thread_num() * width()}, first, last);
    });
  }

  template <class T>
  GateJob<T> gate_job(const at::Tensor& gates_, at::Tensor& act) const {
    return {.gate = data<T>(gates_),
            .up = data<T>(gates_) + inner_width(),
            .act = data<T>(act),
            .in_stride = gates_.stride(0),
            .act_stride = act.stride(0),
            .width = inner_width(),
            .curve = curve_of(block.spec_.mlp.activation)};
  }

  // All four matrices with this pass's pairs.
  void take() {
    auto& m = block.matrices_;
    m.qkv.take(qkv, type);
    m.output.take(output, type);
    m.gate_up.take(gate_up, type);
    m.down.take(down, type);
    taken = takes();
  }
  std::uint64_t takes() const {
    const auto& m = block.matrices_;
    return m.qkv.takes() + m.output.takes() + m.gate_up.takes() + m.down.takes();
  }

  // Up to the gate; what backward needs is in `saved` then.
  template <class T>
  void forward_inside(const at::Tensor& x) {
    auto& m = block.matrices_;
    const auto& spec = block.spec_;
    const auto dim = heads().dim, wide = heads().query_width(), narrow = heads().key_value_width();
    take();

    auto normed = joined_input("normed", m.qkv, qkv);
    norm<T>(spec.attention_norm, *block.attention_norm_, x, {}, {}, normed, keep_float("scale", {rows()}));
    auto projected = work("projected", {rows(), m.qkv.out()});
    m.qkv.forward(projected, normed);
    by_rows(rows(), wide, passes<T>().to_heads, heads_job<T>(projected, 0, q(), heads().query, true));
    by_rows(rows(), wide, passes<T>().to_heads, heads_job<T>(projected, wide, k(), heads().key_value, true));
    by_rows(rows(), wide, passes<T>().to_heads, heads_job<T>(projected, wide + narrow, v(), heads().key_value, false));
    auto by_head = work("by head", {outer(), heads().group() * of.length, dim});
    auto sums = log_sum();
    attend(tiles(), q(), k(), v(), by_head, sums, block.workspace_->buffers);
    auto rows_seen = seen();
    by_rows(rows(), wide, passes<T>().from_heads, heads_job<T>(rows_seen, 0, by_head, heads().query, false));
    auto added = work("added", {rows(), width()});
    m.output.forward(added, rows_seen);

    auto second = joined_input("normed", m.gate_up, gate_up);
    norm<T>(spec.mlp_norm, *block.mlp_norm_, x, added, middle(), second, keep_float("second scale", {rows()}));
    auto all = gates();
    m.gate_up.forward(all, second);
  }

  template <class T>
  at::Tensor forward(const at::Tensor& x) {
    forward_inside<T>(x);
    if (of.cache) {
      const auto by_token = [&](const at::Tensor& held) {
        return held.view({of.batch, heads().key_value, of.length, heads().dim}).transpose(1, 2);
      };
      of.cache->extend(of.layer, by_token(k()), by_token(v()));
    }
    auto& m = block.matrices_;
    auto act = joined_input("act", m.down, down);
    by_rows(rows(), inner_width(), passes<T>().gate, gate_job<T>(gates(), act));
    auto added = work("added", {rows(), width()});
    m.down.forward(added, act);
    auto out = at::empty(x.sizes(), x.options());
    by_rows(
        rows(), width(), passes<T>().add,
        AddJob<T>{
            .x = data<T>(middle()), .y = data<T>(added), .out = data<T>(out), .y_stride = width(), .width = width()});
    return out;
  }

  // dx, undefined unless wanted; the pairs' gradients go to `found`, in the order of qkv, output, gate_up, down.
  template <class T>
  at::Tensor backward(const at::Tensor& x, const at::Tensor& dy, Joined::Wanted wanted,
                      std::vector<PairGradients>& found) {
    auto& m = block.matrices_;
    const auto& spec = block.spec_;
    const auto dim = heads().dim, wide = heads().query_width(), narrow = heads().key_value_width();
    if (of.recompute) {
      forward_inside<T>(x);
    } else if (taken != takes()) {
      take();
    }
    found.resize(4);
    auto act = joined_input("act", m.down, down), d_act = joined_input("d act", m.down, down);
    auto all = gates();
    // Computed again, they are this pass's alone, and their gradients can take their place.
    auto d_gates = of.recompute ? all : work("d gates", {rows(), 2 * inner_width()});
    m.down.backward(d_act, dy, Joined::Wanted::All);
    auto gate = gate_job<T>(all, act);  // gives act again, which the pairs' gradients need
    gate.d = data<T>(d_act);
    gate.d_stride = d_act.stride(0);
    gate.d_gate = data<T>(d_gates);
    gate.d_up = data<T>(d_gates) + inner_width();
    by_rows(rows(), inner_width(), passes<T>().gate_back, gate);
    m.down.inner(act);
    found[3] = m.down.pairs_backward(d_act, dy, act, down);

    auto second = joined_input("normed", m.gate_up, gate_up), d_second = joined_input("d normed", m.gate_up, gate_up);
    const auto second_scale = keep_float("second scale", {rows()});
    norm<T>(spec.mlp_norm, *block.mlp_norm_, middle(), {}, {}, second, second_scale);
    m.gate_up.inner(second);
    m.gate_up.backward(d_second, d_gates, Joined::Wanted::All);
    found[2] = m.gate_up.pairs_backward(d_second, d_gates, second, gate_up);
    auto d_middle = work("d middle", {rows(), width()});
    norm_back<T>(*block.mlp_norm_, d_second, middle(), dy, d_middle, second_scale);

    auto rows_seen = seen();
    auto d_seen = joined_input("d seen", m.output, output);
    m.output.backward(d_seen, d_middle, Joined::Wanted::All);
    found[1] = m.output.pairs_backward(d_seen, d_middle, rows_seen, output);
    const auto grouped = heads().group() * of.length;
    auto d_by_head = work("by head", {outer(), grouped, dim});
    by_rows(rows(), wide, passes<T>().to_heads, heads_job<T>(d_seen, 0, d_by_head, heads().query, false));
    const auto slots = tiles().slots();
    auto dq = work("dq", {outer(), grouped, dim}), dk = work("dk", {slots, outer(), of.length, dim}),
         dv = work("dv", {slots, outer(), of.length, dim});
    attend_back(tiles(), q(), k(), v(), d_by_head, log_sum(), {dq, dk, dv}, block.workspace_->buffers);
    for (std::int64_t slot = 1; slot < slots; ++slot) {
      dk[0].add_(dk[slot]);
      dv[0].add_(dv[slot]);
    }
    auto d_projected = work("projected", {rows(), m.qkv.out()});
    by_rows(rows(), wide, passes<T>().from_heads, heads_job<T>(d_projected, 0, dq, heads().query, true));
    by_rows(rows(), wide, passes<T>().from_heads, heads_job<T>(d_projected, wide, dk, heads().key_value, true));
    by_rows(rows(), wide, passes<T>().from_heads,
            heads_job<T>(d_projected, wide + narrow, dv, heads().key_value, false));

    auto normed = joined_input("normed", m.qkv, qkv), d_normed = joined_input("d normed", m.qkv, qkv);
    const auto scale = keep_float("scale", {rows()});
    norm<T>(spec.attention_norm, *block.attention_norm_, x, {}, {}, normed, scale);
    m.qkv.inner(normed);
    m.qkv.backward(d_normed, d_projected, wanted);
    found[0] = m.qkv.pairs_backward(d_normed, d_projected, normed, qkv);
    if (wanted == Joined::Wanted::Pairs) return {};
    auto dx = at::empty(x.sizes(), x.options());
    norm_back<T>(*block.attention_norm_, d_normed, x, d_middle, dx, scale);
    return dx;
  }
};

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct HeldRun : torch::CustomClassHolder {  // what the graph holds
  explicit HeldRun(std::shared_ptr<Block::Run> of) : run(std::move(of)) {}
  std::shared_ptr<Block::Run> run;
};

std::vector<const Pairs*> all_pairs(const Block::Run& run) { return {&run.qkv, &run.output, &run.gate_up, &run.down}; }

class BlockFunction : public torch::autograd::Function<BlockFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, at::TensorList,
                            const std::shared_ptr<Block::Run>& run) {
    context->save_for_backward({x});
    context->saved_data["run"] = c10::IValue::make_capsule(c10::make_intrusive<HeldRun>(run));
    return run->type == at::kFloat ? run->forward<float>(x) : run->forward<Half>(x);
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const at::NoGradGuard no_grad;
    const auto x = context->get_saved_variables()[0];
    auto& run = *static_cast<HeldRun*>(context->saved_data["run"].toCapsule().get())->run;
    const auto dy = gradients[0].contiguous().view({run.rows(), run.width()});
    const auto wanted = context->needs_input_grad(0) ? Joined::Wanted::All : Joined::Wanted::Pairs;
    std::vector<PairGradients> found;
    auto dx =
        run.type == at::kFloat ? run.backward<float>(x, dy, wanted, found) : run.backward<Half>(x, dy, wanted, found);
    variable_list result{dx};
    for (const auto& one : found)
      for (std::size_t i = 0; i < one.A.size(); ++i) {
        result.push_back(one.A[i]);
        result.push_back(one.B[i]);
      }
    result.emplace_back();  // of the run
    return result;
  }
};

}  // namespace

at::Tensor Block::forward(const at::Tensor& x, const BlockOf& of) {
  auto run = std::make_shared<Run>(Run{.block = *this, .of = of});
  run->type = x.scalar_type();
  run->qkv = matrices_.qkv.pairs();
  run->output = matrices_.output.pairs();
  run->gate_up = matrices_.gate_up.pairs();
  run->down = matrices_.down.pairs();
  if (of.turn) {
    run->cos = of.turn->cos.contiguous();
    run->sin = of.turn->sin.contiguous();
  }
  run->of.turn = nullptr;
  variable_list parameters;
  for (const auto* pairs : all_pairs(*run))
    for (const auto& pair : pairs->all) {
      parameters.push_back(pair.A);
      parameters.push_back(pair.B);
    }
  const auto input = x.contiguous();
  const bool graph = at::GradMode::is_enabled() &&
                     (input.requires_grad() || std::ranges::any_of(parameters, &at::Tensor::requires_grad));
  if (!graph || of.recompute) {
    run->saved = workspace_->passing;
  } else {
    const auto free = std::ranges::find_if(saved_, [](const auto& one) { return one.use_count() == 1; });
    run->saved = free != saved_.end() ? *free : saved_.emplace_back(std::make_shared<Buffers>());
  }
  if (!graph) {
    const at::NoGradGuard no_grad;
    return run->type == at::kFloat ? run->forward<float>(input) : run->forward<Half>(input);
  }
  return BlockFunction::apply(input, at::TensorList(parameters), run);
}

}  // namespace hansa::nn::fast
