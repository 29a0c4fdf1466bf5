// A transformer as data: a family's file makes it of config.json, transformer.hpp computes with it. Values; any thread.
// Module names are those of the checkpoint; an empty name means that there is no such part.
#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <hansa/model.hpp>

#include "nn/rope.hpp"

namespace hansa::nn {

enum class Activation : std::uint8_t { Silu, Gelu, GeluTanh, Relu };

struct Heads {
  std::int64_t query = 0, key_value = 0, dim = 0;
  std::int64_t group() const { return query / key_value; }
  std::int64_t query_width() const { return query * dim; }
  std::int64_t key_value_width() const { return key_value * dim; }
};

struct NormSpec {
  enum class Form : std::uint8_t {
    None,        // there is no norm here
    Rms,         // x / rms(x) in fp32, cast to the compute type, times weight (Llama)
    RmsPlusOne,  // x / rms(x) times (1 + weight) in fp32, then cast (Gemma)
    Layer,       // (x - mean) / deviation, times weight, plus bias; without both where there is no module
  };
  Form form = Form::None;
  std::string module;
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

struct DecoderPlan {            // what reading, writing, merging and generating have to know
  std::vector<Module> modules;  // every tensor of the checkpoint belongs to one: "<name>.weight", "<name>.bias"
  std::string head;             // the module that projects onto the vocabulary; the embedding when tied
  std::int64_t vocabulary = 0, max_length = 0, layers = 0;
  Heads heads;
  std::string optional_prefix;              // "model.": files of the bare decoder lack it
  std::vector<std::string> other_prefixes;  // or have one of these instead (the text half of a larger model)
  std::vector<std::string> unused_parts;    // starts of tensor names of parts that are not this decoder's
  std::vector<std::string> unused;  // ends of tensor names that files may hold and nobody needs, reviewed per family
  std::vector<std::pair<std::string, std::string>> older_ends;  // of tensor names, and what older files write instead
  std::vector<std::string> fresh_where_missing;  // modules that start at random where a checkpoint has none of them
  double logit_soft_cap = 0;                     // logits become cap * tanh(logit / cap); 0: as they are
  double initial_norm = 1;                       // 0 where a norm multiplies with 1 + weight
  std::function<double(const Module&)> initial_deviation;  // of a random weight; biases are 0
};

// A spec and its modules, written down together: each function adds a module and gives its name, or a norm over it.
struct Architecture {
  TransformerSpec spec;
  DecoderPlan plan;

  enum class Bias : std::uint8_t { Without, With };
  enum class Stored : std::uint8_t { OutIn, InOut };
  std::string embedding(std::string name, std::int64_t rows, std::int64_t width);
  std::string linear(std::string name, std::int64_t in, std::int64_t out, Bias, Stored = Stored::OutIn);
  std::string attention(std::string name, const Heads&);  // it holds no tensors; takes a Prefix
  NormSpec norm(NormSpec::Form, std::string name, std::int64_t width, double epsilon);  // Layer: with a bias
  // The head: the table of the embedding (files may store it once more), or a module of its own.
  void tied_head(std::string stored_name);
  void own_head(std::string name, std::int64_t width);
};

}  // namespace hansa::nn
