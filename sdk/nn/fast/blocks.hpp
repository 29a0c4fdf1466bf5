// Blocks of a decoder whose base is frozen, at the speed of their products: one hand-written backward pass for a whole block,
// the low-rank pairs inside the base's products, attention by tiles, everything between two products one pass over memory, in
// buffers that are used again. For the blocks that it does not know, Transformer goes the plain way. Owned by
// Transformer, training thread only.
#pragma once
#include <memory>
#include <string_view>
#include <vector>

#include "nn/architecture.hpp"
#include "nn/causal_model.hpp"
#include "nn/fast/attention_tiles.hpp"
#include "nn/fast/buffers.hpp"
#include "nn/fast/joined.hpp"
#include "nn/fast/passes.hpp"
#include "nn/places.hpp"
#include "nn/rope.hpp"

namespace hansa::nn::fast {

struct Workspace {  // of all blocks
  Buffers buffers;
  // What a pass leaves for its backward pass, where nothing is left: without a graph, or when it is computed again.
  std::shared_ptr<Buffers> passing = std::make_shared<Buffers>();
};

struct BlockOf {  // a batch's part in a pass
  std::int64_t batch = 0, length = 0;
  const Rope::Rows* turn = nullptr;
  std::shared_ptr<const Limits> limits;
  bool recompute = false;
  KeyValueCache* cache = nullptr;  // the layer's keys and values go into it; empty for forward()
  std::int64_t layer = 0;
};

Curve curve_of(Activation);  // of those that plain_form() lets pass

// Whether queries see keys that stand next to each other; null if not.
std::shared_ptr<const Limits> limits_of(const Batch&, const AttentionSpec&, bool causal);

class Block {
 public:
  Block(const BlockSpec&, Places&, std::shared_ptr<Workspace>);
  // Why this block goes the plain way; empty: it does not have to. By what it is, and by what is injected now.
  static std::string_view plain_form(const BlockSpec&);
  std::string_view plain_now(const Dropout&) const;
  at::Tensor forward(const at::Tensor& x, const BlockOf&);
  // One token more of each of a few rows, without a graph, with a cache that holds all tokens before it.
  at::Tensor forward_step(const at::Tensor& x, const BlockOf&);
  static constexpr std::int64_t kStepRows = 8;  // so many at most: then products of matrices are faster

  struct Matrices {
    Joined qkv, output, gate_up, down;
  };
  struct Run;  // one pass over the block

 private:
  friend struct Run;
  template <class T>
  at::Tensor step(const at::Tensor& x, const BlockOf&);
  const BlockSpec& spec_;
  const Place *attention_norm_ = nullptr, *mlp_norm_ = nullptr, *attention_ = nullptr;
  Matrices matrices_;
  std::shared_ptr<Workspace> workspace_;
  // What forward passes left for their backward passes: held by the graph too, and lent again after it.
  std::vector<std::shared_ptr<Buffers>> saved_;
};

}  // namespace hansa::nn::fast
