#include "json_lines.hpp"

#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <hansa/plugin.hpp>

namespace hansa::json_lines {

namespace {

constexpr std::string_view kNone = "none", kAuto = "auto";

const data::ChatFormat* chat_of(const std::string& name, const Tokenizer& tokenizer) {
  if (name == kNone) return nullptr;
  return name == kAuto ? &data::chat_format_of(tokenizer) : &data::chat_format(name);
}

template <class P>
data::Settings settings_of(std::string name, Task task, std::int64_t usual, const P& params) {
  data::Settings settings{.name = std::move(name),
                          .task = task,
                          .length = params.length,
                          .usual_length = usual,
                          .mode = task == Task::Language ? Mode::Pack : Mode::Pad,
                          .on_bad = params.on_bad,
                          .cache = params.cache};
  if constexpr (requires { params.mode; }) settings.mode = params.mode;
  if constexpr (requires { params.too_long; }) settings.too_long = data::rule_of(params.too_long);
  return settings;
}

}  // namespace

JsonText::JsonText(TextParams params, Host& host)
    : SiloSource(settings_of("json_text", Task::Language, 128, params), host), field_(std::move(params.field)) {}

Completions::Completions(CompletionParams params, Host& host)
    : SiloSource(settings_of("completions", Task::Language, 512, params), host), params_(std::move(params)) {}
std::unique_ptr<data::Format> Completions::format(const Tokenizer& tokenizer) const {
  return data::completion_format({params_.prompt, params_.completion}, chat_of(params_.chat_template, tokenizer),
                                 params_.loss);
}

Chat::Chat(ChatParams params, Host& host)
    : SiloSource(settings_of("chat", Task::Language, 512, params), host), params_(std::move(params)) {}
std::unique_ptr<data::Format> Chat::format(const Tokenizer& tokenizer) const {
  return data::chat_format_of_messages(params_.messages, *chat_of(params_.chat_template, tokenizer), params_.loss);
}

Preferences::Preferences(PreferenceParams params, Host& host)
    : SiloSource(settings_of("preferences", Task::Preference, 512, params), host), params_(std::move(params)) {}
std::unique_ptr<data::Format> Preferences::format(const Tokenizer& tokenizer) const {
  return data::preference_format({params_.prompt, params_.chosen, params_.rejected},
                                 chat_of(params_.chat_template, tokenizer));
}

Classes::Classes(ClassParams params, Host& host)
    : SiloSource(settings_of("classes", Task::Classification, 128, params), host), params_(std::move(params)) {}
std::unique_ptr<data::Format> Classes::format(const Tokenizer&) const {
  return data::class_format({params_.text, params_.label}, params_.classes);
}

namespace {

constexpr const char* kSilo = "A silo is a .jsonl file or a directory of them: a JSON object on each line. ";
constexpr const char* kInward = " A name with dots leads into objects.";

enum class Plain { Offered, Refused };
template <class Builder, class P>
void declare_template(Builder& builder, std::string P::*member, Plain plain) {
  const bool none_too = plain == Plain::Offered;
  const auto names = data::chat_format_names();
  const auto list = fmt::format("{}auto, {}", none_too ? "none, " : "", fmt::join(names, ", "));
  builder
      .param(member, "template",
             fmt::format("How a conversation is written: \"auto\" is the checkpoint's own template, where it is one of "
                         "those known{}; else {}.",
                         none_too ? "; \"none\": prompt and answer follow each other as they are" : "",
                         fmt::join(names, ", ")))
      .check([member, names, list, none_too](const P& params, Problems& problems) {
        const auto& name = params.*member;
        if (name == kAuto || (none_too && name == kNone) || std::ranges::find(names, name) != names.end()) return;
        problems.add("template", fmt::format("there is no chat template '{}'", name), "there are: " + list);
      });
}
template <class Builder, class P>
void declare_loss(Builder& builder, Loss P::*member) {
  builder.param(member, "loss", "What is learnt: all of the text, or the completions alone.",
                choices({"all", "completions"}));
}
template <class Builder, class P>
void declare_mode(Builder& builder, Mode P::*member) {
  builder.param(member, "mode", "Several examples in a row, which do not see each other, or one.",
                choices({"pack", "pad"}));
}
template <class Builder, class P>
void declare_too_long(Builder& builder, TooLong P::*member) {
  builder.param(member, "too_long",
                "What to do with an example longer than a row: leave its end out, leave it out, or stop.",
                choices({"cut", "skip", "error"}));
}

void declare_text(PluginBuilder& plugin) {
  using P = TextParams;
  auto source = plugin.add<JsonText, P>("json_text", "JSON lines with a text in a field, as packed or padded rows.");
  source.doc(std::string(kSilo) + "Texts longer than a row are cut into windows.")
      .param(&P::field, "field", std::string("The field that holds the text.") + kInward);
  declare_mode(source, &P::mode);
  data::declare_rows(source, &P::length, &P::on_bad, &P::cache, "128");
}
void declare_completions(PluginBuilder& plugin) {
  using P = CompletionParams;
  auto source = plugin.add<Completions, P>("completions", "JSON lines with a prompt and a completion.");
  source.doc(std::string(kSilo) + "The whole is encoded at once, as it would be at inference.")
      .param(&P::prompt, "prompt", std::string("The field that holds the prompt.") + kInward)
      .param(&P::completion, "completion", std::string("The field that holds the completion.") + kInward);
  declare_template(source, &P::chat_template, Plain::Offered);
  declare_loss(source, &P::loss);
  declare_mode(source, &P::mode);
  declare_too_long(source, &P::too_long);
  data::declare_rows(source, &P::length, &P::on_bad, &P::cache, "512");
}
void declare_chat(PluginBuilder& plugin) {
  using P = ChatParams;
  auto source =
      plugin.add<Chat, P>("chat", "JSON lines with a conversation: a list of messages with role and content.");
  source
      .doc(std::string(kSilo) +
           "Roles are system, user and assistant. Completions are what the assistant says, and what closes it.")
      .param(&P::messages, "messages", std::string("The field that holds the list.") + kInward);
  declare_template(source, &P::chat_template, Plain::Refused);
  declare_loss(source, &P::loss);
  declare_mode(source, &P::mode);
  declare_too_long(source, &P::too_long);
  data::declare_rows(source, &P::length, &P::on_bad, &P::cache, "512");
}
void declare_preferences(PluginBuilder& plugin) {
  using P = PreferenceParams;
  auto source = plugin.add<Preferences, P>(
      "preferences",
      "JSON lines with a prompt, a chosen and a rejected answer: pairs of rows, for preference training.");
  source
      .doc(std::string(kSilo) +
           "Row 2i of a batch is the chosen answer, row 2i + 1 the rejected one; the prompt is not learnt. A batch "
           "holds one pair at least.")
      .param(&P::prompt, "prompt",
             std::string("The field that holds the prompt: a text, or a list of messages.") + kInward)
      .param(&P::chosen, "chosen",
             std::string("The field that holds the better answer: a text, or one message.") + kInward)
      .param(&P::rejected, "rejected", std::string("The field that holds the worse answer.") + kInward);
  declare_template(source, &P::chat_template, Plain::Offered);
  declare_too_long(source, &P::too_long);
  data::declare_rows(source, &P::length, &P::on_bad, &P::cache, "512");
}
void declare_classes(PluginBuilder& plugin) {
  using P = ClassParams;
  auto source = plugin.add<Classes, P>("classes", "JSON lines with a text and its class, for classifiers.");
  source.doc(std::string(kSilo) + "A row is one text, with what the checkpoint's tokenizer puts around it.")
      .param(&P::text, "text", std::string("The field that holds the text.") + kInward)
      .param(&P::label, "label",
             std::string("The field that holds the class: its name, or its number from 0.") + kInward)
      .param(&P::classes, "classes",
             "Names of the classes in the order of their numbers, the same for all nodes. Empty: labels are numbers.");
  declare_too_long(source, &P::too_long);
  data::declare_rows(source, &P::length, &P::on_bad, &P::cache, "128");
}

}  // namespace

void declare(PluginBuilder& plugin) {
  plugin.vendor("Hansa").license("Apache-2.0");
  declare_text(plugin);
  declare_completions(plugin);
  declare_chat(plugin);
  declare_preferences(plugin);
  declare_classes(plugin);
}

}  // namespace hansa::json_lines

HANSA_PLUGIN(org_hansa_json_lines, "0.1.0") { hansa::json_lines::declare(plugin); }
