#include "data/format.hpp"

#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "base/error.hpp"

namespace hansa::data {

namespace {

using Json = nlohmann::json;

// ---- JSON without a word of it in a message: it is private

Json parse_object(std::string_view record) {
  Json parsed;
  try {
    parsed = Json::parse(record);
  } catch (const Json::parse_error& error) {
    throw BadRecord(fmt::format("this is no JSON (character {} of the line)", error.byte));
  }
  if (!parsed.is_object()) throw BadRecord(fmt::format("a JSON object is expected, this is a {}", parsed.type_name()));
  return parsed;
}

const Json* find_field(const Json& object, std::string_view field) {
  if (!object.is_object()) return nullptr;
  if (const auto at = object.find(std::string(field)); at != object.end()) return &*at;
  const auto dot = field.find('.');
  if (dot == std::string_view::npos) return nullptr;
  const auto at = object.find(std::string(field.substr(0, dot)));
  return at == object.end() ? nullptr : find_field(*at, field.substr(dot + 1));
}

const Json& require_field(const Json& object, const std::string& field) {
  if (const auto* found = find_field(object, field)) return *found;
  std::vector<std::string> names;
  for (const auto& [name, value] : object.items())
    if (names.size() < 8) names.push_back(name);
  throw BadRecord(fmt::format("there is no field \"{}\"; there are: {}", field, fmt::join(names, ", ")));
}

std::string text_in(const Json& value, const std::string& field) {
  if (!value.is_string()) throw BadRecord(fmt::format("\"{}\" is a {}, not a text", field, value.type_name()));
  const auto& text = value.get_ref<const std::string&>();
  if (text.find('\0') != std::string::npos) throw BadRecord(fmt::format("\"{}\" holds a NUL character", field));
  return text;
}
std::string require_text(const Json& object, const std::string& field) {
  return text_in(require_field(object, field), field);
}

Message message_in(const Json& one) {
  if (!one.is_object()) throw BadRecord("a message is to be an object with role and content");
  const auto role = require_text(one, "role");
  const auto& content = require_field(one, "content");
  if (!content.is_string())
    throw BadRecord(fmt::format("the content of a message is a {}; only text is read here", content.type_name()));
  Message message{.content = text_in(content, "content")};
  if (role == "system")
    message.role = Role::System;
  else if (role == "assistant")
    message.role = Role::Assistant;
  else if (role != "user")
    throw BadRecord(fmt::format("the role \"{}\" is not known; roles are system, user and assistant", role));
  return message;
}
std::vector<Message> messages_in(const Json& list, const std::string& field) {
  if (!list.is_array()) throw BadRecord(fmt::format("\"{}\" is a {}, not a list of messages", field, list.type_name()));
  std::vector<Message> messages;
  for (const auto& one : list) messages.push_back(message_in(one));
  return messages;
}
// A text is one message of this role.
std::vector<Message> messages_or_text(const Json& object, const std::string& field, Role role) {
  const auto& value = require_field(object, field);
  if (value.is_string()) return {{role, text_in(value, field)}};
  return messages_in(value, field);
}

void count_all(std::vector<Piece>& pieces) {
  for (auto& piece : pieces) piece.counts = true;
}
Draft conversation(const ChatFormat& chat, std::span<const Message> messages, Loss loss) {
  Draft draft{.frame = Draft::Frame::Conversation, .pieces = render(chat, messages)};
  if (loss == Loss::All) count_all(draft.pieces);
  return draft;
}
Draft document(std::string prompt, std::string completion, Loss loss) {
  Draft draft;
  if (!prompt.empty()) draft.pieces.push_back({Piece::Kind::Text, std::move(prompt), loss == Loss::All});
  draft.pieces.push_back({Piece::Kind::Text, std::move(completion), true});
  return draft;
}

// ---- formats

class Text final : public Format {
 public:
  explicit Text(std::string separator) : separator_(std::move(separator)) {}
  std::string_view extension() const override { return ".txt"; }
  void cut(std::string_view text, const EachRecord& each) const override { cut_documents(text, separator_, each); }
  std::vector<Draft> parse(std::string_view record) const override {
    return {document({}, std::string(record), Loss::All)};
  }
  std::string key() const override { return fmt::format("text {}", Json(separator_).dump()); }

 private:
  std::string separator_;
};

class JsonLines : public Format {
 public:
  std::string_view extension() const override { return ".jsonl"; }
  void cut(std::string_view text, const EachRecord& each) const override { cut_lines(text, each); }
  std::vector<Draft> parse(std::string_view record) const override { return drafts_of(parse_object(record)); }

 protected:
  virtual std::vector<Draft> drafts_of(const Json& object) const = 0;
};

class JsonText final : public JsonLines {
 public:
  explicit JsonText(std::string field) : field_(std::move(field)) {}
  std::string key() const override { return fmt::format("json text {}", Json(field_).dump()); }

 private:
  std::vector<Draft> drafts_of(const Json& object) const override {
    auto text = require_text(object, field_);
    if (text.empty()) throw BadRecord(fmt::format("\"{}\" is empty", field_));
    return {document({}, std::move(text), Loss::All)};
  }
  std::string field_;
};

std::string key_of(const ChatFormat* chat, Loss loss);

class Completions final : public JsonLines {
 public:
  Completions(CompletionFields fields, const ChatFormat* chat, Loss loss)
      : fields_(std::move(fields)), chat_(chat), loss_(loss) {}
  std::string key() const override {
    return fmt::format("completions {} {}", Json({fields_.prompt, fields_.completion}).dump(), key_of(chat_, loss_));
  }

 private:
  std::vector<Draft> drafts_of(const Json& object) const override {
    auto prompt = require_text(object, fields_.prompt), completion = require_text(object, fields_.completion);
    if (completion.empty()) throw BadRecord(fmt::format("\"{}\" is empty", fields_.completion));
    if (!chat_) return {document(std::move(prompt), std::move(completion), loss_)};
    return {conversation(*chat_, std::vector<Message>{{Role::User, prompt}, {Role::Assistant, completion}}, loss_)};
  }
  CompletionFields fields_;
  const ChatFormat* chat_;
  Loss loss_;
};

class Chat final : public JsonLines {
 public:
  Chat(std::string field, const ChatFormat& chat, Loss loss) : field_(std::move(field)), chat_(chat), loss_(loss) {}
  std::string key() const override { return fmt::format("chat {} {}", Json(field_).dump(), key_of(&chat_, loss_)); }

 private:
  std::vector<Draft> drafts_of(const Json& object) const override {
    const auto messages = messages_in(require_field(object, field_), field_);
    if (std::ranges::none_of(messages, [](const auto& one) { return one.role == Role::Assistant; }))
      throw BadRecord("the assistant says nothing in this conversation");
    return {conversation(chat_, messages, loss_)};
  }
  std::string field_;
  const ChatFormat& chat_;
  Loss loss_;
};

class Preferences final : public JsonLines {
 public:
  Preferences(PreferenceFields fields, const ChatFormat* chat) : fields_(std::move(fields)), chat_(chat) {}
  std::string key() const override {
    return fmt::format("preferences {} {}", Json({fields_.prompt, fields_.chosen, fields_.rejected}).dump(),
                       key_of(chat_, Loss::Completions));
  }

 private:
  std::vector<Draft> drafts_of(const Json& object) const override {
    return {answered(object, fields_.chosen), answered(object, fields_.rejected)};
  }
  Draft answered(const Json& object, const std::string& field) const {
    if (!chat_) {
      auto answer = require_text(object, field);
      if (answer.empty()) throw BadRecord(fmt::format("\"{}\" is empty", field));
      return document(require_text(object, fields_.prompt), std::move(answer), Loss::Completions);
    }
    auto messages = messages_or_text(object, fields_.prompt, Role::User);
    const auto answer = messages_or_text(object, field, Role::Assistant);
    if (answer.size() != 1 || answer[0].role != Role::Assistant)
      throw BadRecord(fmt::format("\"{}\" is to be a text, or one message of the assistant", field));
    messages.push_back(answer[0]);
    auto draft = conversation(*chat_, messages, Loss::Completions);
    keep_last_answer(draft.pieces);
    return draft;
  }
  // Earlier answers belong to the prompt.
  static void keep_last_answer(std::vector<Piece>& pieces) {
    auto at = pieces.rbegin();
    while (at != pieces.rend() && !at->counts) ++at;
    while (at != pieces.rend() && at->counts) ++at;
    for (; at != pieces.rend(); ++at) at->counts = false;
  }
  PreferenceFields fields_;
  const ChatFormat* chat_;
};

class Classes final : public JsonLines {
 public:
  Classes(ClassFields fields, std::vector<std::string> classes)
      : fields_(std::move(fields)), classes_(std::move(classes)) {}
  std::string key() const override {
    return fmt::format("classes {} {}", Json({fields_.text, fields_.label}).dump(), Json(classes_).dump());
  }

 private:
  std::vector<Draft> drafts_of(const Json& object) const override {
    Draft draft{.frame = Draft::Frame::Classified, .label = label_in(require_field(object, fields_.label))};
    draft.pieces.push_back({Piece::Kind::Text, require_text(object, fields_.text), true});
    if (draft.pieces[0].text.empty()) throw BadRecord(fmt::format("\"{}\" is empty", fields_.text));
    return {draft};
  }
  std::int32_t label_in(const Json& value) const {
    if (value.is_string() && classes_.empty())
      throw BadRecord(fmt::format(
          "\"{}\" is a text. Name all classes in the order of their numbers: classes = [\"…\", \"…\"]", fields_.label));
    if (value.is_string()) {
      const auto at = std::ranges::find(classes_, value.get_ref<const std::string&>());
      if (at == classes_.end()) throw BadRecord(fmt::format("\"{}\" is none of the classes", fields_.label));
      return static_cast<std::int32_t>(at - classes_.begin());
    }
    if (!value.is_number_unsigned() && !value.is_boolean())
      throw BadRecord(fmt::format("\"{}\" is neither the name nor the number of a class", fields_.label));
    const auto number = value.is_boolean() ? std::uint64_t{value.get<bool>()} : value.get<std::uint64_t>();
    const auto most = classes_.empty() ? std::uint64_t{1} << 20 : classes_.size();
    if (number >= most)
      throw BadRecord(fmt::format("\"{}\" is {}, and there are {} classes", fields_.label, number, most));
    return static_cast<std::int32_t>(number);
  }
  ClassFields fields_;
  std::vector<std::string> classes_;
};

// The format as it renders, so that a change of the table is a change of the key.
std::string key_of(const ChatFormat* chat, Loss loss) {
  const std::string_view which = loss == Loss::All ? "all" : "completions";
  if (!chat) return fmt::format("plain {}", which);
  std::vector<Message> sample{{Role::User, "u"}, {Role::Assistant, "a"}, {Role::User, "U"}, {Role::Assistant, "A"}};
  std::string text;
  const auto add = [&] {
    for (const auto& piece : render(*chat, sample))
      text += fmt::format("{}{}{}|", static_cast<int>(piece.kind), piece.counts ? '+' : '-', piece.text);
  };
  add();
  sample.insert(sample.begin(), {Role::System, "s"});
  try {
    add();
  } catch (const BadRecord&) {  // a format without a system role
  }
  return fmt::format("{} {}", Json(text).dump(), which);
}

}  // namespace

std::unique_ptr<Format> text_format(std::string separator) { return std::make_unique<Text>(std::move(separator)); }
std::unique_ptr<Format> json_text_format(std::string field) { return std::make_unique<JsonText>(std::move(field)); }
std::unique_ptr<Format> completion_format(CompletionFields fields, const ChatFormat* chat, Loss loss) {
  return std::make_unique<Completions>(std::move(fields), chat, loss);
}
std::unique_ptr<Format> chat_format_of_messages(std::string field, const ChatFormat& chat, Loss loss) {
  return std::make_unique<Chat>(std::move(field), chat, loss);
}
std::unique_ptr<Format> preference_format(PreferenceFields fields, const ChatFormat* chat) {
  return std::make_unique<Preferences>(std::move(fields), chat);
}
std::unique_ptr<Format> class_format(ClassFields fields, std::vector<std::string> classes) {
  return std::make_unique<Classes>(std::move(fields), std::move(classes));
}

std::vector<Message> parse_messages(std::string_view json_list) {
  try {
    return messages_in(Json::parse(json_list), "messages");
  } catch (const Json::parse_error& error) {
    throw BadRecord(fmt::format("this is no JSON (character {})", error.byte));
  }
}

std::optional<std::string> field_text(std::string_view json_object, const std::string& field) {
  const auto object = parse_object(json_object);
  const auto* found = find_field(object, field);
  if (!found) return std::nullopt;
  return found->is_string() ? found->get<std::string>() : found->dump();
}

}  // namespace hansa::data
