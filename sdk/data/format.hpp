// How a file's text becomes examples: cut into records, each record parsed into drafts. Formats are values without state; any
// thread may parse. A record that cannot be used throws BadRecord.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <hansa/tokenizer.hpp>

#include "data/chat_templates.hpp"
#include "data/draft.hpp"
#include "data/records.hpp"

namespace hansa::data {

class Format {
 public:
  virtual ~Format() = default;
  virtual std::string_view extension() const = 0;
  virtual void cut(std::string_view text, const EachRecord& each) const = 0;
  virtual std::vector<Draft> parse(std::string_view record) const = 0;
  virtual std::string key() const = 0;  // all that the drafts depend on beside the files
};

std::unique_ptr<Format> text_format(std::string separator);

// JSON lines: an object on each. A field's name may lead inwards: "meta.text".
enum class Loss : std::uint8_t { All, Completions };
std::unique_ptr<Format> json_text_format(std::string field);
struct CompletionFields {
  std::string prompt = "prompt", completion = "completion";
};
// `chat`: the prompt is what a user says, the completion what the assistant answers; null: one follows the other as it is.
std::unique_ptr<Format> completion_format(CompletionFields, const ChatFormat* chat, Loss);
std::unique_ptr<Format> chat_format_of_messages(std::string field, const ChatFormat&, Loss);
struct PreferenceFields {
  std::string prompt = "prompt", chosen = "chosen", rejected = "rejected";
};
std::unique_ptr<Format> preference_format(PreferenceFields,
                                          const ChatFormat* chat);  // two drafts a record: chosen, rejected
struct ClassFields {
  std::string text = "text", label = "label";
};
// `classes`: names in the order of their numbers; empty: labels are numbers from 0.
std::unique_ptr<Format> class_format(ClassFields, std::vector<std::string> classes);

// The messages of a conversation as they stand in JSON; throws BadRecord.
std::vector<Message> parse_messages(std::string_view json_list);
// The value of a field as text, for statistics and partitions: strings as they are, other values as JSON; nothing: absent.
std::optional<std::string> field_text(std::string_view json_object, const std::string& field);

}  // namespace hansa::data
