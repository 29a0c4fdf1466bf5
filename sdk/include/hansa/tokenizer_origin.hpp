// What a tokenizer that was read from a checkpoint can say beyond ids. Optional: a Tokenizer that is one of these too gives it
// by dynamic_cast<const TokenizerOrigin*>(&tokenizer); others give null, and who asks goes on without. Any thread.
#pragma once
#include <cstdint>
#include <optional>
#include <string>

namespace hansa {

class TokenizerOrigin {
 public:
  virtual ~TokenizerOrigin() = default;
  // SHA-256, in hexadecimal, of all that its behaviour comes from: the key of what was made with it.
  virtual std::string digest() const = 0;
  // How a token is written in a text, special ones too; empty: there is no such id.
  virtual std::string written(std::int64_t id) const = 0;
  // The checkpoint's own chat template, in Jinja; none: it has none.
  virtual std::optional<std::string> chat_template() const = 0;
};

}  // namespace hansa
