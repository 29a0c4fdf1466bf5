// Data sources over JSON lines: json_text, completions, chat, preferences, classes. Each is a format of sdk/data with its
// parameters. Training thread only.
#pragma once
#include "data/silo_source.hpp"

namespace hansa::json_lines {

using data::Loss;
using data::Mode;
using data::OnBad;
using data::TooLong;

struct TextParams {
  std::string field = "text";
  std::optional<std::int64_t> length;
  Mode mode = Mode::Pack;
  OnBad on_bad = OnBad::Error;
  std::string cache = "auto";
};
class JsonText final : public data::SiloSource {
 public:
  JsonText(TextParams, Host&);

 private:
  std::unique_ptr<data::Format> format(const Tokenizer&) const override { return data::json_text_format(field_); }
  std::string field_;
};

struct CompletionParams {
  std::string prompt = "prompt", completion = "completion";
  std::string chat_template = "none";
  Loss loss = Loss::All;
  std::optional<std::int64_t> length;
  Mode mode = Mode::Pack;
  TooLong too_long = TooLong::Cut;
  OnBad on_bad = OnBad::Error;
  std::string cache = "auto";
};
class Completions final : public data::SiloSource {
 public:
  Completions(CompletionParams, Host&);

 private:
  std::unique_ptr<data::Format> format(const Tokenizer&) const override;
  CompletionParams params_;
};

struct ChatParams {
  std::string messages = "messages";
  std::string chat_template = "auto";
  Loss loss = Loss::All;
  std::optional<std::int64_t> length;
  Mode mode = Mode::Pack;
  TooLong too_long = TooLong::Cut;
  OnBad on_bad = OnBad::Error;
  std::string cache = "auto";
};
class Chat final : public data::SiloSource {
 public:
  Chat(ChatParams, Host&);

 private:
  std::unique_ptr<data::Format> format(const Tokenizer&) const override;
  ChatParams params_;
};

struct PreferenceParams {
  std::string prompt = "prompt", chosen = "chosen", rejected = "rejected";
  std::string chat_template = "none";
  std::optional<std::int64_t> length;
  TooLong too_long = TooLong::Cut;
  OnBad on_bad = OnBad::Error;
  std::string cache = "auto";
};
class Preferences final : public data::SiloSource {
 public:
  Preferences(PreferenceParams, Host&);

 private:
  std::unique_ptr<data::Format> format(const Tokenizer&) const override;
  PreferenceParams params_;
};

struct ClassParams {
  std::string text = "text", label = "label";
  std::vector<std::string> classes;
  std::optional<std::int64_t> length;
  TooLong too_long = TooLong::Cut;
  OnBad on_bad = OnBad::Error;
  std::string cache = "auto";
};
class Classes final : public data::SiloSource {
 public:
  Classes(ClassParams, Host&);

 private:
  std::unique_ptr<data::Format> format(const Tokenizer&) const override;
  ClassParams params_;
};

}  // namespace hansa::json_lines
