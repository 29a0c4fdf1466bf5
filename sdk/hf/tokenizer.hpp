// The tokenizer of a Hugging Face directory: tokenizer.json, else tokenizer.model, else vocab.json with merges.txt, and what
// tokenizer_config.json and config.json say about the texts' begin and end. Gives the ids of the `tokenizers` package (of
// tokenizer.model: those of SentencePiece); what it does not support it refuses by name when it is opened. `truncation` and
// `padding` of the file are not applied: rows are formed by data sources.
//
// Immutable but for a pool of caches, which has a lock: any thread. Throws Error.
#pragma once
#include <filesystem>
#include <memory>

#include <hansa/tokenizer.hpp>
#include <hansa/tokenizer_origin.hpp>

#include "hf/text_coder.hpp"

namespace hansa::hf {

class HfTokenizer : public Tokenizer, public TokenizerOrigin {
 public:
  explicit HfTokenizer(const std::filesystem::path& directory);
  ~HfTokenizer() override;
  // Throws, with the offset of the byte, when the text is not UTF-8.
  std::vector<std::int64_t> encode(std::string_view utf8) const override;
  std::vector<std::int64_t> encode_with_special(
      std::string_view utf8, std::int64_t most = std::numeric_limits<std::int64_t>::max()) const override;
  // Ids without a token are skipped, like special tokens; bytes that are no UTF-8 become U+FFFD.
  std::string decode(const std::vector<std::int64_t>& ids) const override;
  std::int64_t size() const override { return coder_->size(); }
  std::optional<std::int64_t> begin_of_text() const override { return begin_of_text_; }
  std::optional<std::int64_t> end_of_text() const override { return end_of_text_; }
  std::optional<std::int64_t> padding() const override { return padding_; }
  std::optional<std::int64_t> id_of(std::string_view token) const override { return coder_->find(token); }
  std::string digest() const override;  // reads the files again
  std::string written(std::int64_t id) const override { return coder_->written(id); }
  std::optional<std::string> chat_template() const override;  // reads the files; throws on what is none

 private:
  void read_named_tokens();

  std::filesystem::path directory_;
  std::unique_ptr<TextCoder> coder_;
  std::optional<std::int64_t> begin_of_text_, end_of_text_, padding_;
};

// Has this directory a tokenizer at all?
bool has_tokenizer(const std::filesystem::path& directory);
// SHA-256, in hexadecimal, over the names and digests of the files that the tokenizer's behaviour comes from.
std::string tokenizer_digest(const std::filesystem::path& directory);
// chat_template.jinja, or what tokenizer_config.json has under chat_template; of several named ones the one named "default".
std::optional<std::string> chat_template_of(const std::filesystem::path& directory);
// Throws when the tokenizer has ids that a model with so many rows has no embedding for.
void require_ids_within(std::int64_t vocabulary, const HfTokenizer& tokenizer, const std::filesystem::path& directory);

}  // namespace hansa::hf
