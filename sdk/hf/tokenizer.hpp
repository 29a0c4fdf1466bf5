// The tokenizer of a Hugging Face directory: tokenizer.json of the byte-pair family (byte-level or with byte fallback), and
// what tokenizer_config.json and config.json say about the texts' begin and end. Gives the ids of the `tokenizers` package;
// what it does not support it refuses by name when it is opened. The post-processor, `truncation` and `padding` of the file
// are not applied: rows are formed by data sources.
//
// Immutable but for its pool of caches, which has a lock: any thread. Throws Error.
#pragma once
#include <deque>
#include <filesystem>
#include <memory>
#include <unordered_map>

#include <hansa/tokenizer.hpp>
#include <hansa/tokenizer_origin.hpp>

#include "hf/added_tokens.hpp"
#include "hf/byte_pairs.hpp"
#include "hf/decoder.hpp"
#include "hf/normalizer.hpp"
#include "hf/pre_tokenizer.hpp"

namespace hansa::hf {

class HfTokenizer : public Tokenizer, public TokenizerOrigin {
 public:
  explicit HfTokenizer(const std::filesystem::path& directory);
  ~HfTokenizer() override;
  // Throws, with the offset of the byte, when the text is not UTF-8.
  std::vector<std::int64_t> encode(std::string_view utf8) const override;
  // Ids without a token are skipped, like special tokens; bytes that are no UTF-8 become U+FFFD.
  std::string decode(const std::vector<std::int64_t>& ids) const override;
  std::int64_t size() const override { return size_; }
  std::optional<std::int64_t> begin_of_text() const override { return begin_of_text_; }
  std::optional<std::int64_t> end_of_text() const override { return end_of_text_; }
  std::optional<std::int64_t> find(std::string_view token) const;  // added tokens first
  std::string digest() const override;                             // reads the files again
  std::string written(std::int64_t id) const override;
  std::optional<std::string> chat_template() const override;  // reads the files; throws on what is none

 private:
  class Words;   // pieces seen before and their ids
  struct Space;  // what one call of encode needs; pooled
  class Pool;
  void read(const nlohmann::json& file);
  void read_added_tokens(const nlohmann::json& list);
  void add(AddedToken token);
  void read_ends_of_text(const std::filesystem::path& directory);
  void encode_plain(std::string_view text, Space& space, std::vector<TokenId>& ids) const;
  void encode_pieces(std::string_view text, Space& space, std::vector<TokenId>& ids) const;

  std::filesystem::path directory_;
  std::unique_ptr<Normalizer> normalizer_;
  std::unique_ptr<PreTokenizer> pre_tokenizer_;
  std::unique_ptr<BytePairs> model_;
  std::unique_ptr<Decoder> decoder_;
  std::deque<AddedToken> added_;  // stable addresses
  AddedTokenMatcher before_normalizing_, after_normalizing_;
  std::unordered_map<TokenId, std::string> token_of_id_;
  std::unordered_map<TokenId, const AddedToken*> added_by_id_;
  TextMap<TokenId> added_by_content_;
  std::int64_t size_ = 0;
  std::optional<std::int64_t> begin_of_text_, end_of_text_;
  std::unique_ptr<Pool> pool_;
};

// Has this directory a tokenizer at all?
bool has_tokenizer(const std::filesystem::path& directory);
// SHA-256, in hexadecimal, over the names and digests of the files that the tokenizer's behaviour comes from.
std::string tokenizer_digest(const std::filesystem::path& directory);
// chat_template.jinja, or what tokenizer_config.json has under chat_template; of several named ones the one named "default".
std::optional<std::string> chat_template_of(const std::filesystem::path& directory);

}  // namespace hansa::hf
