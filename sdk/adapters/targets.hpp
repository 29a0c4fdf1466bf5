// Which modules an adapter works on: ends of names, a word for all, numbers of blocks. Pure, any thread. Throws Error that
// says what exists when nothing fits.
#pragma once
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <hansa/model.hpp>

namespace hansa::adapters {

struct Choice {
  std::vector<std::string> targets;  // ends of names ("q_proj", "attn.c_proj"), or a word of the Wanted
  std::vector<std::int64_t> blocks;  // empty: all; -1 is the last
};
struct Wanted {
  std::string_view adapter;  // who asks, in messages: "adapter lora"
  std::string_view what;     // "linear modules"
  bool (*fits)(const Module&);
  std::string_view all;                     // the word for all of them, such as "all-linear"; empty: there is none
  bool (*of_all)(const Module&) = nullptr;  // what that word means
  std::vector<std::string_view>
      usual{};  // the ends that the word "auto" stands for, of all families; empty: no such word
};

// In the model's order.
std::vector<Module> choose(const Wanted&, const Choice&, std::span<const Module>);

bool is_linear(const Module&);          // of the blocks
bool is_linear_or_head(const Module&);  //

// "h.3.attn" -> 3: the first number in the name. Embedding, final norm and head have none.
std::optional<std::int64_t> block_of(std::string_view module);
bool ends_like(std::string_view name, std::string_view target);  // the name itself, or its end after a dot

// The shortest ends of names that match exactly the chosen modules among all. How others match: Dotted, at a dot; Plain,
// anywhere.
enum class Ends : std::uint8_t { Dotted, Plain };
std::vector<std::string> shortest_targets(std::span<const Module> all, const std::vector<std::string>& chosen,
                                          Ends = Ends::Dotted);

// Names of the common families, for the word "auto". A model whose names are others is told what exists.
inline const std::vector<std::string_view> kKeysAndValues{
    "k_proj", "v_proj", "key", "value", "k_lin", "v_lin", "attn.c_attn", "query_key_value", "qkv_proj"};
inline const std::vector<std::string_view> kAttentionOutputs{
    "o_proj", "attn.c_proj", "self_attn.out_proj", "attention.dense", "attention.output.dense", "out_lin"};
inline const std::vector<std::string_view> kMlpOutputs{"down_proj",     "mlp.c_proj",   "fc2",
                                                       "dense_4h_to_h", "output.dense", "ffn.lin2"};

}  // namespace hansa::adapters
