// Tokens that are found in the text before anything else: "<|endoftext|>" and the like. Cuts a text into what lies between
// them and their ids. Immutable after construction: any thread.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "hf/token_model.hpp"

namespace hansa::hf {

struct AddedToken {
  TokenId id = 0;
  std::string content;
  bool single_word = false;             // not inside a longer word
  bool lstrip = false, rstrip = false;  // takes the space on that side with it
  bool normalized = false;              // looked for after normalising
  bool special = false;                 // skipped when decoding
};

inline const std::string kAddedTokensWhere = "tokenizer.json: added_tokens";
// An entry of added_tokens. Throws Error.
AddedToken read_added_token(const nlohmann::json& entry);

struct Segment {  // of a text
  std::string_view text;
  const AddedToken* token = nullptr;  // null: plain text
};

class AddedTokenMatcher {
 public:
  // `pattern` is what stands in the text for `token`, which outlives this.
  void add(std::string_view pattern, const AddedToken& token);
  bool empty() const { return nodes_.size() == 1; }
  // Leftmost, longest. `segments` is appended to; its views point into `text`.
  void cut(std::string_view text, std::vector<Segment>& segments) const;

 private:
  struct Node {
    std::vector<std::pair<unsigned char, std::uint32_t>> children;  // few
    const AddedToken* token = nullptr;
  };
  const AddedToken* longest_at(std::string_view text, std::size_t at, std::size_t& end) const;
  std::vector<Node> nodes_ = std::vector<Node>(1);
  std::array<bool, 256> starts_{};  // bytes that a pattern begins with
};

}  // namespace hansa::hf
