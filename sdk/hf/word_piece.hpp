// WordPiece (arXiv:1609.08144, as in BERT, arXiv:1810.04805): the longest token that a word begins with, then the longest
// that the rest begins with, and so on; a word that does not come out is unknown as a whole. WordLevel: whole words only.
#pragma once
#include "hf/token_model.hpp"

namespace hansa::hf {

class WordLevel : public TokenModel {
 public:
  explicit WordLevel(const nlohmann::json& model);
  void encode(std::string_view piece, ModelSpace& space, std::vector<TokenId>& ids) const override;
  std::optional<TokenId> find(std::string_view token) const override;
  std::size_t count() const override { return vocabulary_.size(); }
  void for_each(const std::function<void(std::string_view, TokenId)>& token) const override;

 protected:
  struct ReadOnly {};  // by a derived kind, which has looked at the keys
  WordLevel(const nlohmann::json& model, ReadOnly);
  void push_unknown(std::string_view piece, std::vector<TokenId>& ids) const;

 private:
  TextMap<TokenId> vocabulary_;
  std::string unknown_token_;
  std::optional<TokenId> unknown_;
};

class WordPiece : public WordLevel {
 public:
  explicit WordPiece(const nlohmann::json& model);
  void encode(std::string_view piece, ModelSpace& space, std::vector<TokenId>& ids) const override;

 private:
  std::string prefix_;  // of tokens that go on a word
  std::size_t most_characters_ = 0, longest_ = 0;
};

}  // namespace hansa::hf
