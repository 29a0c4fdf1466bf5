// Unigram (arXiv:1804.10959): the segmentation of a piece with the greatest sum of the tokens' scores, by Viterbi's algorithm
// over a trie. What no token covers is unknown, ten below the least score; neighbours that are unknown are one.
#pragma once
#include "hf/token_model.hpp"

namespace hansa::hf {

class Unigram : public TokenModel {
 public:
  explicit Unigram(const nlohmann::json& model);
  void encode(std::string_view piece, ModelSpace& space, std::vector<TokenId>& ids) const override;
  std::optional<TokenId> find(std::string_view token) const override;
  std::size_t count() const override { return tokens_.size(); }
  void for_each(const std::function<void(std::string_view, TokenId)>& token) const override;

 private:
  static constexpr std::uint32_t kNone = 0xFFFFFFFF;
  struct Token {
    std::string text;
    double score = 0;
  };
  struct Node {
    TokenId id = kNone;       // of the token that ends here
    std::uint32_t first = 0;  // its children by byte: children_[first + byte - least]
    unsigned char least = 0;
    std::uint16_t width = 0;
  };
  void read_tokens(const nlohmann::json& model);
  void build_trie();
  std::uint32_t child(std::uint32_t node, unsigned char byte) const {
    const auto& at = nodes_[node];
    const unsigned index = static_cast<unsigned>(byte) - at.least;
    return index < at.width ? children_[at.first + index] : kNone;
  }
  void find_ways(std::string_view piece, std::vector<ModelSpace::Arrival>& arrivals) const;
  void push(std::string_view text, std::vector<TokenId>& ids) const;

  std::vector<Token> tokens_;
  TextMap<TokenId> ids_;
  std::vector<Node> nodes_;
  std::vector<std::uint32_t> children_;
  std::optional<TokenId> unknown_;
  double unknown_score_ = 0;
  bool byte_fallback_ = false;
  std::array<std::optional<TokenId>, 256> byte_tokens_;
};

}  // namespace hansa::hf
