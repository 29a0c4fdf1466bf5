// Kind "model": an architecture over a base read from a Hugging Face directory. Node side, training thread only.
#pragma once
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <variant>

#include <c10/core/Device.h>

#include <hansa/component.hpp>

namespace hansa {

struct Module {  // a place in the model, known from config.json alone
  enum class Kind : std::uint8_t { Linear, Embedding, Norm, Head };
  std::string name;  // as in the checkpoint: "model.layers.3.self_attn.q_proj"
  Kind kind = Kind::Linear;
  std::int64_t in = 0, out = 0;  // weight of a Linear is [out, in]; Embedding: in rows of out; Norm: out
  bool bias = false;
  bool stored_transposed = false;  // the checkpoint stores [in, out] (GPT-2's Conv1D): PEFT's fan_in_fan_out
};

// What an adapter puts into a module. Tensors are live: the model reads them at every forward pass.
struct LowRank {
  at::Tensor A, B;
  double scale = 1, dropout = 0;
};  // y += scale * B A dropout(x); A [r, in], B [out, r]
struct Replace {
  at::Tensor weight, bias;
};  // full-parameter training; bias undefined where the module has none
// A module takes one Replace, or LowRank pairs: the first is the one that trains, in the compute type; further ones are fixed
// (no gradient, no dropout) and stand for a change of the frozen weight, so they are computed in fp32 whatever the base has.
struct Injection {
  std::string module;
  std::variant<LowRank, Replace> what;
};

struct Batch {
  at::Tensor tokens;     // i64 [batch, length]
  at::Tensor labels;     // i64 [batch, length], already shifted: labels[t] follows tokens[t]; -100 is not counted
  at::Tensor positions;  // i64 [batch, length], from 0 in each document. Undefined: 0, 1, 2 … in each row
  at::Tensor
      segments;  // i64 [batch, length]: tokens see only their own segment; -1 is padding. Undefined: one segment a row
  std::int64_t bytes = 0;    // UTF-8 bytes that the counted labels stand for
  std::int64_t counted = 0;  // labels that are not -100
  std::int64_t documents = 0;
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
  virtual void open(const std::filesystem::path& checkpoint, at::Device, DType compute) = 0;
  // Random weights from config.json and a seed: training from scratch.
  virtual void initialise(const std::filesystem::path& checkpoint, at::Device, DType compute, std::uint64_t seed) = 0;
  virtual std::int64_t vocabulary() const = 0;
  virtual std::int64_t max_length() const = 0;  // longest sequence, in tokens
  // The base's own weight and bias of a module, fp32; bias undefined where it has none.
  virtual std::pair<at::Tensor, at::Tensor> base(std::string_view module) const = 0;
  // All tensors of a checkpoint of the model as it now computes (injections folded in), in checkpoint names and layout, fp32.
  virtual std::vector<std::pair<std::string, at::Tensor>> merged() const = 0;
  virtual void inject(std::span<const Injection>) = 0;  // replaces earlier ones; honours each or refuses it by name
  virtual void enable_dropout(
      std::uint64_t seed) = 0;                // the model's and the injections'; masks are a function of the seed
  virtual void disable_dropout() = 0;         // how a model starts
  virtual at::Tensor loss(const Batch&) = 0;  // sum over counted labels in nats, fp32 scalar, with graph
  virtual std::unique_ptr<Cache> cache(std::int64_t batch, std::int64_t most) const = 0;
  // [batch, length, vocabulary], fp32, no graph. With a cache: tokens continue it, and undefined positions go on from its
  // length. Segments are honoured without one.
  virtual at::Tensor logits(const Batch&, Cache*) = 0;
};

}  // namespace hansa
