// A transformer as data: a family's file makes it of config.json, transformer.hpp computes with it. Values; any thread.
// Module names are those of the checkpoint; an empty name means that there is no such part.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "nn/attention.hpp"
#include "nn/rope.hpp"

namespace hansa::nn {

enum class Activation : std::uint8_t { Silu, Gelu, GeluTanh, Relu };

struct NormSpec {
  enum class Form : std::uint8_t {
    Rms,         // x / rms(x) in fp32, cast to the compute type, times weight (Llama)
    RmsPlusOne,  // x / rms(x) times (1 + weight) in fp32, then cast (Gemma)
    Layer,       // (x - mean) / deviation, times weight, plus bias; without them where the module has none
  };
  std::string module;
  Form form = Form::Rms;
  double epsilon = 1e-5;
};

struct AttentionSpec {
  enum class Inputs : std::uint8_t {
    Apart,    // modules `query`, `key`, `value`
    Joined,   // one module `query`: its rows are those of all queries, then keys, then values
    PerHead,  // one module `query`: query, key and value of the first head, then of the second …
  };
  std::string module;  // the attention as a whole, which takes a Prefix
  Inputs inputs = Inputs::Apart;
  std::string query, key, value, output;
  Heads heads;
  double scale = 1;                 // of the products of queries and keys
  std::optional<std::size_t> rope;  // which of TransformerSpec::ropes turns queries and keys; none: they are not turned
  std::optional<std::int64_t> window;  // a token sees so many keys, itself included
  double soft_cap = 0;                 // scores become cap * tanh(score / cap) before the mask; 0: as they are
  double dropout = 0;                  // of the probabilities
  NormSpec query_norm, key_norm;       // over the width of a head, before the turn
};

struct MlpSpec {  // down(act(gate x) * up x); without a gate down(act(up x))
  std::string gate, up, down;
  bool joined = false;  // `up` holds the rows of the gate, then those of up; `gate` is empty
  Activation activation = Activation::Silu;
};

struct BlockSpec {
  enum class Order : std::uint8_t {
    NormFirst,  // x += after_attention(attention(attention_norm x)); x += after_mlp(mlp(mlp_norm x))
    NormLast,   // x = attention_norm(x + attention x); x = mlp_norm(x + mlp x)
    Parallel,   // x += attention(attention_norm x) + mlp(mlp_norm x)
  };
  Order order = Order::NormFirst;
  NormSpec attention_norm, after_attention, mlp_norm, after_mlp;
  AttentionSpec attention;
  MlpSpec mlp;
  double dropout = 0;  // of what attention and mlp add
};

struct EmbeddingSpec {
  std::string tokens;
  double scale = 1;  // rounded to the compute type before it multiplies (Gemma)
  std::string positions;
  std::int64_t position_offset = 0;  // OPT: 2; RoBERTa: padding id + 1
  std::string types;                 // BERT's segment of a pair; all tokens are of type 0
  NormSpec norm;
  double dropout = 0;
  std::string project;  // onto the width of the blocks, where that is another
};

struct TransformerSpec {
  EmbeddingSpec embedding;
  std::vector<RopeSettings> ropes;
  std::vector<BlockSpec> blocks;
  NormSpec final_norm;
  std::string project;  // back onto the width of the embedding
  bool causal = true;   // false: every token sees all of its segment
};

}  // namespace hansa::nn
