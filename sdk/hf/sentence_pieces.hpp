// tokenizer.model by the sentencepiece library: byte pairs, Unigram, words or characters, with the normalisation that the file
// holds. Tokens that tokenizer_config.json and its neighbours add are found in a text first; each stretch between them is a
// text of its own, which `legacy` = false spares the space that the first one gets before it.
//
// What the library gives is remembered word by word, where no token spans two words, and its texts of tokens are joined here.
// Immutable but for the pool of remembered words, which has a lock: any thread.
#pragma once
#include <deque>
#include <filesystem>
#include <memory>

#include <nlohmann/json_fwd.hpp>

#include "hf/added_tokens.hpp"
#include "hf/text_coder.hpp"
#include "hf/word_memory.hpp"

namespace hansa::hf {

class SentencePieces : public TextCoder {
 public:
  // Throws Error when the file is none of this kind, or when an added token has the id of another one.
  SentencePieces(const std::filesystem::path& directory, const nlohmann::json& tokenizer_config);
  ~SentencePieces() override;
  std::vector<std::int64_t> encode(std::string_view utf8) const override;
  std::string decode(const std::vector<std::int64_t>& ids) const override;
  std::int64_t size() const override;
  std::optional<std::int64_t> find(std::string_view token) const override;
  std::string written(std::int64_t id) const override;
  const AroundText& around() const override { return around_; }

 private:
  struct Library;
  void encode_stretch(std::string_view text, bool later, WordMemory& words, std::vector<TokenId>& ids) const;
  void open_words(const std::string& model);
  void read_surfaces();
  std::string decode_run(const std::vector<int>& run) const;
  void read_added_tokens(const nlohmann::json& list);
  std::unique_ptr<Library> library_;
  AroundText around_;
  std::deque<AddedToken> added_;  // stable addresses
  AddedTokenMatcher matcher_;
  boost::unordered_flat_map<std::int64_t, const AddedToken*> added_by_id_;
  TextMap<TokenId> added_by_content_;
  std::int64_t size_ = 0;
  std::vector<std::int16_t> bytes_;    // "<0x41>": 65; else -1
  std::vector<std::string> surfaces_;  // of ids after the first word; empty: the library decodes all
  std::unique_ptr<Pool<WordMemory>> pool_;
};

}  // namespace hansa::hf
