#include "hf/post_processor.hpp"

#include <string>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "hf/json_file.hpp"

namespace hansa::hf {
namespace {

const std::string kPostProcessor = "tokenizer.json: post_processor";
using Ids = std::vector<std::int64_t>;

// Applied to a text that has `around` already.
void surround(AroundText& around, const Ids& before, const Ids& after) {
  around.before.insert(around.before.begin(), before.begin(), before.end());
  around.after.insert(around.after.end(), after.begin(), after.end());
}

// ["[SEP]", 102]
std::int64_t id_of_pair(const nlohmann::json& part, const char* key) {
  const auto pair = is_absent(part, key) ? nlohmann::json() : part.at(key);
  if (!pair.is_array() || pair.size() != 2 || !pair[0].is_string() || !pair[1].is_number_unsigned())
    throw Error(fmt::format("{}: {} is {}, not a token and its id", kPostProcessor, key, pair.dump()));
  return pair[1].get<std::int64_t>();
}

Ids ids_of_special(const nlohmann::json& part, const std::string& name) {
  const auto known = is_absent(part, "special_tokens") ? nlohmann::json::object() : part.at("special_tokens");
  if (!known.contains(name))
    throw Error(fmt::format("{}: the template's token '{}' is not among special_tokens", kPostProcessor, name));
  return known.at(name).at("ids").get<Ids>();
}

void add_template(AroundText& around, const nlohmann::json& part) {
  allow_only(part, {"type", "single", "pair", "special_tokens"}, kPostProcessor);
  if (is_absent(part, "single") || !part.at("single").is_array())
    throw Error(kPostProcessor + ": single is not a list");
  Ids before, after;
  bool text_seen = false;
  for (const auto& piece : part.at("single")) {
    allow_only(piece, {"SpecialToken", "Sequence"}, kPostProcessor + ": single");
    if (piece.contains("Sequence")) {
      if (text_seen || piece.at("Sequence").at("id") != "A")
        throw Error(kPostProcessor + ": a template whose single form has another text than one A is not supported");
      text_seen = true;
      continue;
    }
    const auto ids = ids_of_special(part, text_of(piece.at("SpecialToken"), "id", kPostProcessor));
    auto& side = text_seen ? after : before;
    side.insert(side.end(), ids.begin(), ids.end());
  }
  if (!text_seen) throw Error(kPostProcessor + ": a template without the text A is not supported");
  surround(around, before, after);
}

void add(AroundText& around, const nlohmann::json& part) {
  const auto type =
      part.is_object() ? text_of(part, "type", kPostProcessor) : throw Error(kPostProcessor + " is not an object");
  if (type == "Sequence") {
    allow_only(part, {"type", "processors"}, kPostProcessor);
    for (const auto& member : part.at("processors")) add(around, member);
  } else if (type == "TemplateProcessing") {
    add_template(around, part);
  } else if (type == "BertProcessing" || type == "RobertaProcessing") {
    allow_only(part, {"type", "sep", "cls", "trim_offsets", "add_prefix_space"},
               kPostProcessor);  // offsets are not ours to give
    surround(around, {id_of_pair(part, "cls")}, {id_of_pair(part, "sep")});
  } else if (type == "ByteLevel") {
    allow_only(part, {"type", "add_prefix_space", "trim_offsets", "use_regex"}, kPostProcessor);
  } else {
    throw Error(
        fmt::format("{}: type '{}' is not supported; supported: BertProcessing, ByteLevel, RobertaProcessing, "
                    "Sequence, TemplateProcessing",
                    kPostProcessor, type));
  }
}

}  // namespace

AroundText read_post_processor(const nlohmann::json& part) {
  AroundText around;
  if (!part.is_null()) add(around, part);
  return around;
}

}  // namespace hansa::hf
