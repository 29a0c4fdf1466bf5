// Kind "model": an architecture over a base read from a Hugging Face directory. Node side, training thread only.
// Devices: a batch lies on the CPU, whatever the model computes on; the model takes it over. What a forward pass gives lies on
// the model's device; weights that are asked for (base, merged) on the CPU.
#pragma once
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <variant>

#include <c10/core/Device.h>

#include <hansa/component.hpp>
#include <hansa/opening.hpp>

namespace hansa {

struct Module {  // a place in the model, known from config.json alone
  // Attention: an attention layer as a whole; it has no weights of its own and takes a Prefix.
  enum class Kind : std::uint8_t { Linear, Embedding, Norm, Head, Attention };
  std::string name;  // as in the checkpoint: "model.layers.3.self_attn.q_proj"
  Kind kind = Kind::Linear;
  // Weight of a Linear is [out, in]; Embedding: in rows of out; Norm: out; Attention: key-value heads, width of a head.
  std::int64_t in = 0, out = 0;
  bool bias = false;
  bool stored_transposed = false;  // the checkpoint stores [in, out] (GPT-2's Conv1D): PEFT's fan_in_fan_out
};

// What an adapter puts into a module. Tensors are live, fp32: the model reads them at every forward pass, and gradients
// reach those that require them.
struct LowRank {  // y += scale * B A dropout(x); A [r, in], B [out, r]; in a Linear or the Head
  at::Tensor A, B;
  double scale = 1, dropout = 0;
  // VeRA (arXiv 2310.11454): y += scale * outer * (B (inner * (A dropout(x)))); inner [r], outer [out]; or both undefined.
  at::Tensor inner, outer;
  // DoRA (arXiv 2402.09353): the columns W + scale B A, each row brought to the length magnitude [out]; the length divided by
  // is a constant in the backward pass. Undefined: plain.
  at::Tensor magnitude;
};
struct Replace {  // training of the module's own parameters; an undefined one stays the base's
  at::Tensor weight, bias;
};
// (IA)3 (arXiv 2205.05638): y = by * (W x + bias), by [out], or y = W (by * x) + bias, by [in].
struct Rescale {
  enum class Of : std::uint8_t { Input, Output };
  at::Tensor by;
  Of of = Of::Output;
};
struct Bottleneck {  // Houlsby (arXiv 1902.00751): y += up act(down y + down_bias) + up_bias
  enum class Activation : std::uint8_t { Relu, Gelu, Silu };
  at::Tensor down, down_bias, up, up_bias;  // [r, out], [r], [out, r], [out]
  Activation activation = Activation::Gelu;
};
struct Prompt {     // soft tokens (arXiv 2104.08691) before each row, seen by all its documents; in the token embedding
  at::Tensor rows;  // [count, width]; positions of the text start at count, and the longest sequence shrinks by it
};
struct Prefix {  // keys and values (arXiv 2101.00190) before each row, seen by all its documents; in an Attention
  at::Tensor keys, values;  // [count, key-value heads, head width], not rotated; positions of the text start at count
};
// A module takes one of each kind at most, and LowRank pairs: the first is the one that trains, in the compute type; further
// ones are fixed (no gradient, no dropout) and stand for a change of the frozen weight, so they are computed in fp32 whatever
// the base has.
struct Injection {
  std::string module;
  std::variant<LowRank, Replace, Rescale, Bottleneck, Prompt, Prefix> what;
};

// What the rows of a batch are. Language: each token is to be foretold. Preference: language, and rows 2i and 2i + 1 are the
// better and the worse answer to one prompt. Classification: one class a row.
enum class Task : std::uint8_t { Language, Preference, Classification };

struct Batch {
  at::Tensor tokens;     // i64 [batch, length]
  at::Tensor labels;     // i64 [batch, length], already shifted: labels[t] follows tokens[t]; -100 is not counted.
                         // Classification: [batch], the class
  at::Tensor positions;  // i64 [batch, length], from 0 in each document. Undefined: 0, 1, 2 … in each row
  at::Tensor
      segments;  // i64 [batch, length]: tokens see only their own segment; -1 is padding. Undefined: one segment a row
  std::int64_t bytes = 0;    // UTF-8 bytes that the counted labels stand for
  std::int64_t counted = 0;  // labels that are not -100
  std::int64_t documents = 0;
  Task task = Task::Language;
};

struct Opening {  // how a base is opened
  at::Device device = at::kCPU;
  DType compute = DType::f32;  // f32 or bf16
  BaseDtype base = BaseDtype::Compute;
  Kernels kernels = Kernels::Fast;
  bool recompute = false;  // activations are computed again in the backward pass: slower, much smaller
};

class Cache {  // keys and values of a generation; made by the model, opaque to others
 public:
  virtual ~Cache() = default;
  virtual std::int64_t length() const = 0;
};

class Model : public Component {
 public:
  using InterfaceType = Model;
  static constexpr std::string_view kKind = "model/1";
  // Does config.json in this directory describe this architecture (by model_type)? Reads nothing else, does not throw on others.
  virtual bool accepts(const std::filesystem::path& checkpoint) const = 0;
  virtual std::vector<Module> modules(const std::filesystem::path& checkpoint) const = 0;  // reads config.json only
  // Reads the weights; throws, naming the key or tensor, when something is unsupported, missing or does not fit.
  virtual void open(const std::filesystem::path& checkpoint, const Opening&) = 0;
  // Random weights from config.json and a seed: training from scratch.
  virtual void initialise(const std::filesystem::path& checkpoint, const Opening&, std::uint64_t seed) = 0;
  virtual std::int64_t vocabulary() const = 0;
  virtual std::int64_t max_length() const = 0;  // longest sequence, in tokens
  // The base's own weight and bias of a module, fp32; bias undefined where it has none.
  virtual std::pair<at::Tensor, at::Tensor> base(std::string_view module) const = 0;
  // All tensors of a checkpoint of the model as it now computes (injections folded in), in checkpoint names and layout, fp32.
  virtual std::vector<std::pair<std::string, at::Tensor>> merged() const = 0;
  // Replaces earlier ones; honours each or refuses it by name. Brings their tensors to the model's device, in place: all who
  // hold them see them there, and an adapter need not know of devices.
  virtual void inject(std::span<const Injection>) = 0;
  virtual void enable_dropout(
      std::uint64_t seed) = 0;                // the model's and the injections'; masks are a function of the seed
  virtual void disable_dropout() = 0;         // how a model starts
  virtual at::Tensor loss(const Batch&) = 0;  // sum over counted labels in nats, fp32 scalar, with graph
  // The same label by label: fp32 in the shape of the labels, 0 where none is counted, with graph.
  virtual at::Tensor label_losses(const Batch&) = 0;
  virtual std::unique_ptr<Cache> cache(std::int64_t batch, std::int64_t most) const = 0;
  // fp32 [batch, length, vocabulary], no graph; of a classifier [batch, classes]. With a cache: tokens continue it, and
  // undefined positions go on from its length. Segments are honoured without one.
  virtual at::Tensor logits(const Batch&, Cache*) = 0;
  // The logits that stand for counted labels, row after row: fp32 [counted, vocabulary], with graph.
  virtual at::Tensor counted_logits(const Batch&) = 0;
  // The last layer's output before any head, fp32 [batch, length, width], no graph: embeddings are made of it.
  virtual at::Tensor hidden(const Batch&) = 0;
};

}  // namespace hansa
