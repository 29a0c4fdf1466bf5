// Byte-pair encoding (arXiv:1508.07909) of one piece of text: the pair with the lowest rank is merged first.
#pragma once
#include "hf/token_model.hpp"

namespace hansa::hf {

class BytePairs : public TokenModel {
 public:
  explicit BytePairs(const nlohmann::json& model);
  // Time n log n. As in the reference, a character without a token, a byte token or an unknown token vanishes.
  void encode(std::string_view piece, ModelSpace& space, std::vector<TokenId>& ids) const override;
  std::optional<TokenId> find(std::string_view token) const override;
  std::size_t count() const override { return vocabulary_.size(); }
  void for_each(const std::function<void(std::string_view, TokenId)>& token) const override;

 private:
  struct Merge {
    std::uint32_t rank = 0;
    TokenId merged = 0;
  };
  void read_affixes(const nlohmann::json& model);
  void index_characters();
  void read_merges(const nlohmann::json& model);
  void read_unknown(const nlohmann::json& model);
  void add_merge(const std::string& left, const std::string& right, std::uint32_t rank);
  std::optional<TokenId> token_of_character(std::string_view piece, std::size_t begin, std::size_t end,
                                            std::string& written) const;
  void start_symbols(std::string_view piece, ModelSpace& space) const;
  bool push_bytes(std::string_view character, std::vector<ModelSpace::Symbol>& symbols) const;
  const Merge* merge_of(TokenId left, TokenId right) const;

  TextMap<TokenId> vocabulary_;
  std::string prefix_, suffix_;  // of characters that go on a piece, of the one that ends it
  boost::unordered_flat_map<std::uint32_t, TokenId> id_of_character_;  // by code point
  boost::unordered_flat_map<std::uint64_t, Merge> merges_;             // by (left id, right id)
  std::array<std::optional<TokenId>, 256> byte_tokens_;                // "<0x41>": with byte_fallback only
  std::optional<TokenId> unknown_;
  bool fuse_unknown_ = false, byte_fallback_ = false, ignore_merges_ = false;
};

}  // namespace hansa::hf
