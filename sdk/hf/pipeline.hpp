// What tokenizer.json describes: a text is cut at added tokens, normalised, cut into pieces, and each piece encoded by the
// model; ids come back through the decoder. Immutable but for its pool of caches, which has a lock: any thread. Throws Error.
#pragma once
#include <deque>
#include <memory>

#include <nlohmann/json_fwd.hpp>

#include "hf/added_tokens.hpp"
#include "hf/decoder.hpp"
#include "hf/normalizer.hpp"
#include "hf/pre_tokenizer.hpp"
#include "hf/text_coder.hpp"
#include "hf/token_model.hpp"
#include "hf/word_memory.hpp"

namespace hansa::hf {

class TokenPipeline : public TextCoder {
 public:
  // `file` as in tokenizer.json. Not applied: `truncation` and `padding`, for rows are formed by data sources.
  explicit TokenPipeline(const nlohmann::json& file);
  ~TokenPipeline() override;
  std::vector<std::int64_t> encode(std::string_view utf8) const override;
  std::string decode(const std::vector<std::int64_t>& ids) const override;
  std::int64_t size() const override { return static_cast<std::int64_t>(entries_.size()); }
  std::optional<std::int64_t> find(std::string_view token) const override;
  std::string written(std::int64_t id) const override;
  const AroundText& around() const override { return around_; }

 private:
  using Place = PreTokenizer::Place;
  struct Entry {  // of an id
    std::string token;
    std::string first, later;  // what the decoder makes of it, at the beginning of a text and after it
    bool known = false, special = false;
  };
  struct Space;  // what one call of encode needs; pooled
  void read_added_tokens(const nlohmann::json& list);
  void add(AddedToken token);
  Entry& entry(TokenId id);
  void prepare_decoding();
  void encode_plain(std::string_view text, Place place, Space& space) const;
  void encode_pieces(std::string_view text, Place place, Space& space) const;

  std::unique_ptr<Normalizer> normalizer_;
  std::unique_ptr<PreTokenizer> pre_tokenizer_;
  std::unique_ptr<TokenModel> model_;
  std::unique_ptr<Decoder> decoder_;
  AroundText around_;
  std::deque<AddedToken> added_;  // stable addresses
  AddedTokenMatcher before_normalizing_, after_normalizing_;
  TextMap<TokenId> added_by_content_;
  std::vector<Entry> entries_;  // by id
  std::unique_ptr<Pool<Space>> pool_;
};

}  // namespace hansa::hf
