// From files to pieces to tokens: records, formats, chat templates, masks.
#include <fstream>

#include <hansa/testing/bare_model.hpp>

#include "base/error.hpp"
#include "base/file.hpp"
#include "base/rng.hpp"
#include "data/encode.hpp"
#include "data/format.hpp"
#include "data/test_tokenizers.hpp"
#include "data/tokenise.hpp"
#include "test.hpp"

using namespace hansa;
using namespace hansa::data;
using Catch::Matchers::Contains;

namespace {

std::vector<std::string> records_of(const Format& format, std::string_view text) {
  std::vector<std::string> found;
  format.cut(text, [&](const Record& record) { found.emplace_back(record.text); });
  return found;
}
// Counted pieces in brackets, special tokens as {b} and {e}.
std::string shown(const std::vector<Piece>& pieces) {
  std::string text;
  for (const auto& piece : pieces) {
    const auto words = piece.kind == Piece::Kind::Text ? piece.text : piece.kind == Piece::Kind::Begin ? "{b}" : "{e}";
    text += piece.counts ? "[" + words + "]" : words;
  }
  return text;
}
std::string parsed(const Format& format, std::string_view record) {
  std::string text;
  for (const auto& draft : format.parse(record)) text += (text.empty() ? "" : " | ") + shown(draft.pieces);
  return text;
}
std::string refusal(const Format& format, std::string_view record) {
  try {
    format.parse(record);
  } catch (const BadRecord& bad) {
    return bad.what();
  }
  return "";
}

}  // namespace

TEST_CASE("documents end at separator lines, lines at line ends, and blank ones are passed over") {
  CHECK(records_of(*text_format("%"), "ab\n%\ncde\r\n%\r\n\n%\nfghij\n") ==
        std::vector<std::string>{"ab", "cde", "fghij"});
  CHECK(records_of(*text_format(""), "a\n%\nb") == std::vector<std::string>{"a\n%\nb"});
  CHECK(records_of(*json_text_format("text"), "\xef\xbb\xbf{\"a\":1}\r\n\n  \n{}") ==
        std::vector<std::string>{"{\"a\":1}", "{}"});
}

TEST_CASE("each format of JSON lines finds its fields and says what is to be learnt") {
  CHECK(parsed(*json_text_format("meta.text"), R"({"meta": {"text": "hello"}})") == "[hello]");
  const auto pair = R"({"prompt": "a?", "completion": "b", "instruction": "c"})";
  CHECK(parsed(*completion_format({}, nullptr, Loss::All), pair) == "[a?][b]");
  CHECK(parsed(*completion_format({}, nullptr, Loss::Completions), pair) == "a?[b]");
  CHECK(parsed(*completion_format({.prompt = "instruction"}, &chat_format("llama2"), Loss::Completions), pair) ==
        "{b}[INST] c [/INST][ b ][{e}]");
  const auto talk = R"({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]})";
  CHECK(parsed(*chat_format_of_messages("messages", chat_format("chatml"), Loss::Completions), talk) ==
        "<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\n[y<|im_end|>]\n");
  const auto choice = R"({"prompt": "p", "chosen": "good", "rejected": "bad"})";
  CHECK(parsed(*preference_format({}, nullptr), choice) == "p[good] | p[bad]");
  CHECK(parsed(*preference_format({}, &chat_format("zephyr")), choice) ==
        "<|user|>\np{e}\n<|assistant|>\n[good][{e}]\n | <|user|>\np{e}\n<|assistant|>\n[bad][{e}]\n");
  const auto long_prompt =
      R"({"prompt": [{"role":"user","content":"p"},{"role":"assistant","content":"q"},{"role":"user","content":"r"}],
          "chosen": [{"role":"assistant","content":"good"}], "rejected": "bad"})";
  CHECK(parsed(*preference_format({}, &chat_format("zephyr")), long_prompt)
            .starts_with("<|user|>\np{e}\n<|assistant|>\nq{e}\n<|user|>\nr{e}\n<|assistant|>\n[good][{e}]\n | "));
  const auto classes = class_format({}, {"red", "green"});
  CHECK(classes->parse(R"({"text": "t", "label": "green"})")[0].label == 1);
  CHECK(classes->parse(R"({"text": "t", "label": 0})")[0].label == 0);
  CHECK(class_format({}, {})->parse(R"({"text": "t", "label": 7})")[0].label == 7);
}

TEST_CASE("records that cannot be used are refused without a word of their text") {
  const auto text = json_text_format("text");
  CHECK_THAT(refusal(*text, "{\"text\": \"secret"), Contains("no JSON") && !Contains("secret"));
  CHECK_THAT(refusal(*text, "[1]"), Contains("an object") || Contains("object is expected"));
  CHECK_THAT(refusal(*text, R"({"body": "secret"})"),
             Contains("no field \"text\"; there are: body") && !Contains("secret"));
  CHECK_THAT(refusal(*text, R"({"text": 3})"), Contains("a number, not a text"));
  CHECK_THAT(refusal(*text, R"({"text": ""})"), Contains("is empty"));
  CHECK_THAT(refusal(*text, R"({"text": "a\u0000b"})"), Contains("NUL"));
  const auto chat = chat_format_of_messages("messages", chat_format("gemma"), Loss::All);
  CHECK_THAT(refusal(*chat, R"({"messages": "hi"})"), Contains("not a list"));
  CHECK_THAT(refusal(*chat, R"({"messages": [{"role": "tool", "content": "x"}]})"), Contains("\"tool\" is not known"));
  CHECK_THAT(refusal(*chat, R"({"messages": [{"role": "user", "content": ["x"]}]})"), Contains("only text"));
  CHECK_THAT(refusal(*chat, R"({"messages": [{"role": "user", "content": "x"}]})"), Contains("says nothing"));
  CHECK_THAT(
      refusal(*chat, R"({"messages": [{"role": "system", "content": "x"}, {"role": "assistant", "content": "x"}]})"),
      Contains("no system role"));
  CHECK_THAT(refusal(*chat, R"({"messages": [{"role": "assistant", "content": "x"}]})"), Contains("in turn"));
  const auto classes = class_format({}, {"red", "green"});
  CHECK_THAT(refusal(*classes, R"({"text": "t", "label": "blue"})"), Contains("none of the classes"));
  CHECK_THAT(refusal(*classes, R"({"text": "t", "label": 2})"), Contains("there are 2 classes"));
  CHECK_THAT(refusal(*classes, R"({"text": "t", "label": -1})"), Contains("neither"));
  CHECK_THAT(refusal(*class_format({}, {}), R"({"text": "t", "label": "red"})"), Contains("classes = ["));
}

TEST_CASE("white space is trimmed as Python's strip does it") {
  CHECK(trimmed_like_python(" \t\u00a0\u3000x\u2003y\u2028\x1c\n") == "x\u2003y");
  CHECK(trimmed_like_python("\u200bx") == "\u200bx");  // a zero-width space is none
  CHECK(trimmed_like_python(" \n").empty());
}

TEST_CASE("a checkpoint's own template is known by its digest, or refused with the names that there are") {
  Words tokenizer;
  CHECK_THROWS_WITH(chat_format_of(tokenizer), Contains("has no chat template") && Contains("mistral_v3"));
  tokenizer.own_template = "{{ messages[0] }}";
  CHECK_THROWS_WITH(chat_format_of(tokenizer), Contains("none that is known here") && Contains("alpaca"));
  CHECK_THROWS_WITH(chat_format("chatlm"), Contains("'chatlm'") && Contains("chatml"));
  for (const auto& name : chat_format_names()) {
    const auto own = read_file(std::filesystem::path(HANSA_GOLDEN) / "templates" / (name + ".jinja"));
    INFO(name);
    tokenizer.own_template = "\n  " + own + " ";
    CHECK(&chat_format_of(tokenizer) == &chat_format(name));
  }
}

TEST_CASE("a template's digest leaves out what Jinja leaves out, and nothing of what it writes") {
  const auto digest = chat_template_digest("{% for m in messages %}{{ 'a: ' + m }}\n{% endfor %}");
  CHECK(digest != chat_template_digest("{% for m in messages %}{{ 'a:  ' + m }}\n{% endfor %}"));
  CHECK(digest != chat_template_digest("{% for m in messages %}{{ 'a: ' + m }}\n\n{% endfor %}"));
  CHECK(digest != chat_template_digest("{% for m in messages %}{{ 'a: ' + m -}}\n{% endfor %}"));
  CHECK(digest == chat_template_digest("{#- a note -#}\n {%  for m\nin messages %}{{ 'a: ' + m }}\n{% endfor %}\n"));
  CHECK(chat_template_digest("{{ '}}  {#' -}} \n{%- x -%} ") == chat_template_digest("{{  '}}  {#' -}}{%- x -%}"));
  CHECK(chat_template_digest("{{ '}}  {#' -}}") != chat_template_digest("{{ '}} {#' -}}"));
}

TEST_CASE("the digests of published templates are known") {
  // Llama 3 and Qwen2.5 instruct, Gemma 2, Zephyr.
  CHECK(chat_format_by_digest("ba03a121d097859c7b5b9cd03af99aafe95275210d2876f642ad9929a150f122") == "llama3");
  CHECK(chat_format_by_digest("2dd6bc0f6ed8698526f4275e07476a855553fef2547d3d357e3fa2d9e7f53820") == "qwen2.5");
  CHECK(chat_format_by_digest("ecd6ae513fe103f0eb62e8ab5bfa8d0fe45c1074fa398b089c93a7e70c15cfd6") == "gemma");
  CHECK(chat_format_by_digest("30d0ce3cc83b62196409165ef0b6c4eaf9678292a09562c1364382f23979e3cc") == "zephyr");
  CHECK_FALSE(chat_format_by_digest("00").has_value());
}

TEST_CASE("tokens that reach over a border count where any of their bytes do") {
  Words tokenizer;
  SplitMix64 random(7);
  for (int trial = 0; trial < 3000; ++trial) {
    Draft draft{.frame = Draft::Frame::Conversation};
    std::string whole;
    std::vector<bool> counts;
    for (std::uint64_t p = 1 + random.below(5); p > 0; --p) {
      Piece piece{.counts = random.below(2) == 1};
      if (random.below(6) == 0) piece.kind = random.below(2) ? Piece::Kind::Begin : Piece::Kind::End;
      if (piece.kind == Piece::Kind::Text)
        for (auto n = random.below(7); n > 0; --n) piece.text += "ab \n.\xc3"[random.below(5)];
      const auto text = piece.kind == Piece::Kind::Text    ? piece.text
                        : piece.kind == Piece::Kind::Begin ? "<s>"
                                                           : "</s>";
      whole += text;
      counts.insert(counts.end(), text.size(), piece.counts);
      draft.pieces.push_back(piece);
    }
    const auto encoded = encode(draft, tokenizer, 0);
    const auto places = Words::cut(whole);
    const auto ids = tokenizer.encode(whole);
    REQUIRE(encoded.tokens.size() == places.size());
    for (std::size_t t = 0; t < places.size(); ++t) {
      bool learnt = false;
      for (std::size_t b = 0; b < places[t].second; ++b) learnt = learnt || counts[places[t].first + b];
      INFO(whole << " token " << t);
      REQUIRE(id_of(encoded.tokens[t]) == ids[t]);
      REQUIRE((encoded.tokens[t] >= 0) == learnt);
    }
  }
}

TEST_CASE("a bad record stops with file and line, or is left out and counted") {
  TemporaryDirectory directory;
  const auto path = directory.path() / "a.jsonl";
  std::ofstream(path) << "{\"text\": \"one\"}\n\n{\"text\": 2}\n{\"text\": \"three\"}\nnot json\n";
  const Words tokenizer;
  const auto format = json_text_format("text");
  testing::QuietHost host;
  MemorySink strict, lenient;
  CHECK_THROWS_WITH(tokenise(path, {*format, tokenizer}, host, strict), Contains("a.jsonl:3: \"text\" is a number"));
  const auto tally = tokenise(path, {*format, tokenizer, 0, OnBad::Skip}, host, lenient);
  CHECK(tally.records == 4);
  CHECK(tally.skipped == 2);
  CHECK_THAT(tally.first_skipped, Contains("a.jsonl:3"));
  CHECK(lenient.examples() == 2);
  host.cancel = true;
  MemorySink never;
  CHECK_THROWS_WITH(tokenise(path, {*format, tokenizer, 0, OnBad::Skip}, host, never), Contains("cancelled"));
}

TEST_CASE("the pace says how long it will take") {
  CHECK(pace_text(25'000'000, 100'000'000, 20) == "25 %, 1.2 MB/s, 1:00 left");
  CHECK(pace_text(0, 0, 1) == "100 %, 0.0 MB/s, 0:00 left");
}
