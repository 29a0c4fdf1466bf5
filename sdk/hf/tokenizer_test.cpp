// What the parity test in Python does not reach: bad files, bad texts, long texts, threads. Ids against the reference are
// compared in tests/parity/test_tokenizer.py.
#include "hf/tokenizer.hpp"

#include <atomic>
#include <cstring>
#include <ctime>
#include <functional>
#include <thread>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/file.hpp"
#include "test.hpp"

using namespace hansa;
using namespace hansa::hf;
using Catch::Matchers::Contains;
using Ids = std::vector<std::int64_t>;
using List = std::vector<nlohmann::json>;  // braces alone may become an object

namespace {

nlohmann::json plain() {
  return nlohmann::json::parse(R"({"version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
    "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": {"type": "Fuse"},
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, " ": 3}, "merges": [["a", "b"]]}})");
}

nlohmann::json added(int id, const std::string& content) {
  return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", true}};
}

struct Folder {
  TemporaryDirectory directory;
  void put(const std::string& name, const std::string& text) const {
    write_file_atomically(directory.path() / name, text, Durability::Process);
  }
  HfTokenizer open(const nlohmann::json& file) const {
    put("tokenizer.json", file.dump());
    return HfTokenizer(directory.path());
  }
  std::string error(const nlohmann::json& file) const {
    try {
      open(file);
    } catch (const Error& problem) {
      return problem.what();
    }
    return "";
  }
  // The error when the value at a JSON pointer is changed.
  std::string error_with(const std::string& pointer, const nlohmann::json& value) const {
    auto file = plain();
    file[nlohmann::json::json_pointer(pointer)] = value;
    return error(file);
  }
};

// Of the processor: other programs may run beside the tests.
double seconds_of(const std::function<void()>& work) {
  const auto start = std::clock();
  work();
  return static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
}

}  // namespace

TEST_CASE("a text is merged in the order of the merges, and decoded again") {
  const Folder folder;
  const auto tokenizer = folder.open(plain());
  CHECK(tokenizer.encode("abb ab") == Ids{2, 1, 3, 2});
  CHECK(tokenizer.decode({2, 1, 3, 2}) == "abb ab");
  CHECK(tokenizer.size() == 4);
  CHECK(tokenizer.encode("").empty());
  CHECK(tokenizer.decode({-1, 4, 1'000'000'000'000}).empty());
}

TEST_CASE("merges that are missing, malformed, cyclic or about unknown tokens are refused") {
  const Folder folder;
  auto file = plain();
  file["model"].erase("merges");
  CHECK_THAT(folder.error(file), Contains("merges are missing"));
  const std::string merges = "/model/merges";
  CHECK_THAT(folder.error_with(merges, List{"a"}), Contains("merge 0 is \"a\", not two tokens"));
  CHECK_THAT(folder.error_with(merges, List{"a b c"}), Contains("not two tokens"));
  CHECK_THAT(folder.error_with(merges, List{1}), Contains("not two tokens"));
  CHECK_THAT(folder.error_with(merges, List{" a"}), Contains("merge 0 of '' and 'a' is cyclic"));
  CHECK_THAT(folder.error_with(merges, List{List{"a", ""}}), Contains("cyclic"));
  CHECK_THAT(folder.error_with(merges, List{"a x"}), Contains("the token 'x' is not in the vocabulary"));
  CHECK_THAT(folder.error_with(merges, List{"b a"}), Contains("the result 'ba' is not in the vocabulary"));
}

TEST_CASE("ids of the vocabulary that are doubled, negative or no numbers are refused") {
  const Folder folder;
  CHECK_THAT(folder.error_with("/model/vocab/b", 0), Contains("have the same id 0"));
  CHECK_THAT(folder.error_with("/model/vocab/b", -1), Contains("'b' is -1"));
  CHECK_THAT(folder.error_with("/model/vocab/b", "1"), Contains("'b' is \"1\""));
  CHECK_THAT(folder.error_with("/model/vocab", nullptr), Contains("vocab is missing"));
  CHECK_THAT(folder.error_with("/model/unk_token", "<unk>"), Contains("'<unk>' is not in the vocabulary"));
  folder.put("tokenizer.json", R"({"model": {"type": "BPE", "vocab": {"a": 0, "a": 1}, "merges": []}})");
  CHECK_THROWS_WITH(HfTokenizer(folder.directory.path()), Contains("\"a\" occurs twice"));
}

TEST_CASE("added tokens have the model's id or the next free one") {
  const Folder folder;
  CHECK(folder.error_with("/added_tokens", List{added(4, "<x>"), added(0, "a"), added(5, "<y>")}).empty());
  CHECK_THAT(folder.error_with("/added_tokens", List{added(9, "<x>")}),
             Contains("'<x>' has the id 9") && Contains("make it 4"));
  CHECK_THAT(folder.error_with("/added_tokens", List{added(2, "<x>")}), Contains("'<x>' has the id 2"));
  CHECK_THAT(folder.error_with("/added_tokens", List{added(4, "<x>"), added(4, "<y>")}),
             Contains("'<y>' has the id 4"));
  CHECK_THAT(folder.error_with("/added_tokens", List{added(4, "")}), Contains("is empty"));
}

TEST_CASE("parts of a tokenizer file that are not supported are refused by name") {
  const Folder folder;
  CHECK_THAT(folder.error_with("/model/type", "Twist"), Contains("type 'Twist' is not supported"));
  CHECK_THAT(folder.error_with("/model/dropout", 0.1), Contains("dropout = 0.1 is not supported"));
  CHECK_THAT(folder.error_with("/model/twist", 1), Contains("'twist' is not supported"));
  CHECK_THAT(folder.error_with("/normalizer", {{"type", "Twist"}}), Contains("type 'Twist' is not supported"));
  CHECK_THAT(folder.error_with("/normalizer", {{"type", "BertNormalizer"}, {"twist", 1}}),
             Contains("'twist' is not supported"));
  CHECK_THAT(folder.error_with("/pre_tokenizer", {{"type", "UnicodeScripts"}}),
             Contains("type 'UnicodeScripts' is not supported"));
  CHECK_THAT(folder.error_with("/pre_tokenizer", {{"type", "ByteLevel"}, {"twist", 1}}),
             Contains("'twist' is not supported"));
  CHECK_THAT(folder.error_with("/decoder", {{"type", "CTC"}}), Contains("type 'CTC' is not supported"));
  CHECK_THAT(folder.error_with("/post_processor", {{"type", "Twist"}}), Contains("type 'Twist' is not supported"));
  CHECK_THAT(folder.error_with("/normalizer", {{"type", "Sequence"}}), Contains("not as expected"));
  CHECK_THAT(folder.error_with("/version", "2.0"), Contains("version"));
  CHECK_THAT(folder.error_with("/twist", 1), Contains("'twist' is not supported"));
}

TEST_CASE("values of a tokenizer file that cannot be meant are refused with the key") {
  const Folder folder;
  const auto mark = [](const nlohmann::json& more) {
    nlohmann::json part = {{"type", "Metaspace"}, {"replacement", "\u2581"}};
    part.update(more);
    return part;
  };
  const std::string pre = "/pre_tokenizer";
  CHECK_THAT(folder.error_with(pre, mark({{"replacement", "ab"}})), Contains("not one character"));
  CHECK_THAT(folder.error_with(pre, mark({{"prepend_scheme", "often"}})), Contains("prepend_scheme = 'often'"));
  CHECK_THAT(folder.error_with(pre, mark({{"prepend_scheme", "first"}, {"add_prefix_space", false}})),
             Contains("contradicts prepend_scheme"));
  CHECK_THAT(folder.error_with(pre, {{"type", "FixedLength"}, {"length", 0}}), Contains("no number above 0"));
  CHECK_THAT(folder.error_with("/normalizer", {{"type", "Precompiled"}, {"precompiled_charsmap", "!"}}),
             Contains("damaged"));
  CHECK_THAT(folder.error_with("/normalizer", {{"type", "Precompiled"}, {"precompiled_charsmap", "/////w=="}}),
             Contains("longer than the data"));
  CHECK_THAT(folder.error_with("/decoder", {{"type", "Strip"}, {"content", " "}, {"start", -1}, {"stop", 0}}),
             Contains("start = -1 is not a count"));
  CHECK_THAT(folder.error_with("/post_processor", {{"type", "BertProcessing"}, {"sep", List{"[SEP]"}}}),
             Contains("not a token and its id"));
  const auto unigram = [&](const nlohmann::json& vocabulary, const nlohmann::json& unknown) {
    return folder.error_with("/model", {{"type", "Unigram"}, {"unk_id", unknown}, {"vocab", vocabulary}});
  };
  CHECK_THAT(unigram(List{List{"a"}}, nullptr), Contains("not a token and its score"));
  CHECK_THAT(unigram(List{List{"a", -1.5}}, 1), Contains("unk_id = 1 is no id of the 1 tokens"));
  CHECK_THAT(folder.error_with("/model", {{"type", "WordPiece"}, {"vocab", {{"a", 0}}}}),
             Contains("unk_token is missing"));
}

TEST_CASE("a text that the vocabulary has no token for is an error where nothing stands for it") {
  const Folder folder;
  auto file = plain();
  file["model"] = {{"type", "Unigram"}, {"unk_id", nullptr}, {"vocab", List{List{"a", -1.0}}}};
  const auto tokenizer = folder.open(file);
  CHECK(tokenizer.encode("aa") == Ids{0, 0});
  CHECK_THROWS_WITH(tokenizer.encode("ab"), Contains("'b' has no token"));
}

TEST_CASE("what stands around a text counts against the length asked for") {
  const Folder folder;
  auto file = plain();
  file["added_tokens"] = List{added(4, "[CLS]"), added(5, "[SEP]")};
  CHECK(folder.open(file).encode_with_special("ab b", 2) == Ids{2, 3});
  file["post_processor"] = {{"type", "BertProcessing"}, {"sep", {"[SEP]", 5}}, {"cls", {"[CLS]", 4}}};
  const auto tokenizer = folder.open(file);
  CHECK(tokenizer.encode_with_special("ab b") == Ids{4, 2, 3, 1, 5});
  CHECK(tokenizer.encode_with_special("ab b", 4) == Ids{4, 2, 3, 5});
  CHECK(tokenizer.encode_with_special("ab b", 1) == Ids{4});
  CHECK(tokenizer.encode_with_special("ab b", -1).empty());
  CHECK(tokenizer.encode("ab b") == Ids{2, 3, 1});
}

TEST_CASE("a tokenizer with more ids than the model has embeddings for is refused with the token") {
  const Folder folder;
  auto file = plain();
  file["added_tokens"] = List{added(4, "<pad>")};
  const auto tokenizer = folder.open(file);
  CHECK_NOTHROW(require_ids_within(5, tokenizer, folder.directory.path()));
  CHECK_THROWS_WITH(require_ids_within(4, tokenizer, folder.directory.path()),
                    Contains("ids up to 4 ('<pad>')") && Contains("embeddings for 4 tokens"));
}

TEST_CASE("vocab.json and merges.txt are a tokenizer, with the tokens that the files beside them name") {
  const Folder folder;
  folder.put("vocab.json", R"({"a": 0, "b": 1, "ab": 2, "<|endoftext|>": 3, "</s>": 4})");
  folder.put("merges.txt", "#version: 0.2\na b\n");
  const auto& path = folder.directory.path();
  CHECK(HfTokenizer(path).encode("abb<|endoftext|></s>").size() == 3);  // "</s>" has no letters here
  folder.put("tokenizer_config.json", R"({"bos_token": "</s>", "add_bos_token": true,
                                          "added_tokens_decoder": {"5": {"content": "<pad>", "special": true}},
                                          "pad_token": "<pad>"})");
  const HfTokenizer tokenizer(path);
  CHECK(tokenizer.encode("abb</s><pad>") == Ids{2, 1, 4, 5});
  CHECK(tokenizer.encode_with_special("ab") == Ids{4, 2});
  CHECK(tokenizer.decode({2, 1, 4, 5}) == "abb");
  CHECK(tokenizer.padding() == 5);
  CHECK(tokenizer.begin_of_text() == 4);
  folder.put("merges.txt", "#version: 0.2\na b c\n");
  CHECK_THROWS_WITH(HfTokenizer(path), Contains("merge 0 is \"a b c\", not two tokens"));
  folder.put("tokenizer_config.json", R"({"added_tokens_decoder": {"x": {"content": "<pad>"}}})");
  CHECK_THROWS_WITH(HfTokenizer(path), Contains("'x' is no id"));
}

namespace {

// A field of a protobuf message that has a length; texts here are short.
std::string field(int number, const std::string& value) {
  return std::string{static_cast<char>(number << 3 | 2), static_cast<char>(value.size())} + value;
}
std::string number_field(int number, int value) { return {static_cast<char>(number << 3), static_cast<char>(value)}; }
std::string piece(const std::string& text, float score, int type) {
  std::string bytes(sizeof score, '\0');
  std::memcpy(bytes.data(), &score, sizeof score);
  return field(1, field(1, text) + std::string{2 << 3 | 5} + bytes + number_field(3, type));
}
// Byte pairs; types: 1 normal, 2 unknown, 3 control, 6 byte.
std::string sentencepiece_model() {
  const std::string mark = "\xE2\x96\x81";
  std::string model = piece("<unk>", 0, 2) + piece("<s>", 0, 3) + piece("</s>", 0, 3);
  float score = 0;
  for (const auto& text : {mark + "ab", std::string("ab"), mark, std::string("a"), std::string("b")})
    model += piece(text, score--, 1);
  for (int byte = 0; byte < 256; ++byte) model += piece(fmt::format("<0x{:02X}>", byte), 0, 6);
  return model +
         field(2, number_field(3, 2) + std::string{static_cast<char>(0x98), 2, 1} /* 35: bytes for the unknown */) +
         field(3, field(1, "identity") + number_field(4, 0));
}

}  // namespace

TEST_CASE("tokenizer.model gives the ids of SentencePiece, whether a text is taken word by word or not") {
  const Folder folder;
  folder.put("tokenizer.model", sentencepiece_model());
  const HfTokenizer plain_one(folder.directory.path());
  CHECK(plain_one.size() == 8 + 256);
  CHECK(plain_one.encode("ab ab") == Ids{3, 3});
  CHECK(plain_one.encode("ab abb a  b ") == Ids{3, 3, 7, 5, 6, 5, 5, 7, 5});
  CHECK(plain_one.encode("\xC3\xA9") == Ids{5, 8 + 0xC3, 8 + 0xA9});
  CHECK(plain_one.decode({3, 1, 3, 7, 8 + 0xC3, 8 + 0xA9, 5}) == "ab abb\u00e9 ");
  CHECK(plain_one.decode({3, 8 + 0xC3, 6}) == "ab\uFFFDa");
  CHECK(plain_one.written(3) == "\u2581ab");
  CHECK(plain_one.id_of("<s>") == 1);
  CHECK_FALSE(plain_one.id_of("nothing"));
  folder.put("tokenizer_config.json",
             R"({"bos_token": "<s>", "add_bos_token": true, "legacy": false,
                 "added_tokens_decoder": {"1": {"content": "<s>", "special": true}, "264": {"content": "<pad>"}}})");
  const HfTokenizer with_added(folder.directory.path());
  CHECK(with_added.encode("ab<s>ab ab<pad>a") == Ids{3, 1, 4, 3, 264, 6});
  CHECK(with_added.decode({1, 3, 264, 3}) == "ab<pad>ab");
  CHECK(with_added.encode_with_special("ab") == Ids{1, 3});
  CHECK(with_added.size() == 265);
  folder.put("tokenizer_config.json", R"({"added_tokens_decoder": {"3": {"content": "<x>"}}})");
  CHECK_THROWS_WITH(HfTokenizer(folder.directory.path()), Contains("'<x>' has the id 3, which is '\u2581ab'"));
}

TEST_CASE("each kind of part does what the reference does with it, in short") {
  const Folder folder;
  auto file = plain();
  const auto words = [&](const nlohmann::json& vocabulary) {
    return nlohmann::json{{"type", "WordPiece"},
                          {"unk_token", "?"},
                          {"continuing_subword_prefix", "##"},
                          {"max_input_chars_per_word", 100},
                          {"vocab", vocabulary}};
  };
  file["normalizer"] = {{"type", "BertNormalizer"}};
  file["pre_tokenizer"] = {{"type", "BertPreTokenizer"}};
  file["decoder"] = {{"type", "WordPiece"}, {"prefix", "##"}, {"cleanup", true}};
  file["model"] = words({{"?", 0}, {"caf", 1}, {"##e", 2}, {",", 3}, {"\u4e2d", 4}, {"a", 5}});
  const auto bert = folder.open(file);
  CHECK(bert.encode("Caf\u00c9,\u4e2d\u4e2d \u200da xyz") == Ids{1, 2, 3, 4, 4, 5, 0});
  CHECK(bert.decode({1, 2, 3, 5}) == "cafe, a");
  file["normalizer"] = {{"type", "Sequence"},
                        {"normalizers", List{{{"type", "NFKC"}}, {{"type", "Strip"}}, {{"type", "Lowercase"}}}}};
  file["pre_tokenizer"] = {{"type", "Metaspace"}, {"replacement", "\u2581"}, {"prepend_scheme", "first"}};
  file["decoder"] = {{"type", "Metaspace"}, {"replacement", "\u2581"}, {"prepend_scheme", "first"}};
  file["added_tokens"] = List{added(4, "<s>")};
  file["model"] = {{"type", "Unigram"},
                   {"unk_id", 0},
                   {"vocab", List{List{"?", 0}, List{"\u2581fi", -1.0}, List{"fi", -1.0}, List{"x", -9.0}}}};
  const auto unigram = folder.open(file);
  CHECK(unigram.encode("\uFB01x\u00e9\u00e8 ") == Ids{1, 3, 0});
  CHECK(unigram.encode(" fi") == Ids{2});  // the first character of the text went with Strip
  CHECK(unigram.encode("fi<s>fi FI") == Ids{1, 4, 2, 1});
  CHECK(unigram.decode({1, 3, 1}) == "fix fi");
}

TEST_CASE("a tokenizer.model that SentencePiece cannot read is refused") {
  const Folder folder;
  folder.put("tokenizer.model", "no such thing");
  CHECK_THROWS_WITH(HfTokenizer(folder.directory.path()), Contains("tokenizer.model: cannot be read"));
}

TEST_CASE("expressions that we would read otherwise than the reference are refused") {
  const Folder folder;
  const auto error = [&](const std::string& expression) {
    return folder.error_with(
        "/pre_tokenizer",
        {{"type", "Split"}, {"pattern", {{"Regex", expression}}}, {"behavior", "Isolated"}, {"invert", false}});
  };
  for (const char* good : {R"(\s+(?!\S)|[^\r\n\p{L}]?\p{Lu}*+)", R"((?i)'s|[a\-\]]{1,3}?)", R"(\x{1F600}|[\u0041-Z])",
                           "a|", "^$", "a{,3}"}) {
    CAPTURE(good);
    CHECK(error(good).empty());
  }
  for (const char* bad : {R"(\b)",
                          R"((a)\1)",
                          R"(\p{Emoji})",
                          R"([[:alpha:]])",
                          "[a&&b]",
                          "a{2}+",
                          "a(?i)b",
                          "(?i)stop",
                          "(?i)é",
                          "(?m:.)",
                          "(",
                          ")",
                          "[a",
                          "+",
                          "a**",
                          R"(\p{L)",
                          "(?<n>a)",
                          R"(\xff)",
                          "[z-a]",
                          R"(\X)",
                          "(?<=a+)b",
                          "\\"}) {
    CAPTURE(bad);
    CHECK_THAT(error(bad), Contains("not supported"));
  }
}

TEST_CASE("a text that is not UTF-8 is refused with the place") {
  const Folder folder;
  const auto tokenizer = folder.open(plain());
  CHECK_THROWS_WITH(tokenizer.encode("ab\xff"), Contains("0xFF at offset 2"));
  CHECK_THROWS_WITH(tokenizer.encode("a\xc3"), Contains("offset 1"));
  CHECK_THROWS_WITH(tokenizer.encode("\xed\xa0\x80"), Contains("offset 0"));  // a surrogate
  CHECK_THROWS_WITH(tokenizer.encode("\xc0\x80"), Contains("offset 0"));      // too long a form
  CHECK_THROWS_WITH(tokenizer.encode("\xf4\x90\x80\x80"), Contains("offset 0"));
  CHECK_NOTHROW(tokenizer.encode(std::string_view("a\0b", 3)));
}

TEST_CASE("a line of 10 MB does not hang, whatever it is made of") {
  const Folder folder;
  auto file = plain();
  file["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}};
  file["model"]["vocab"] = {{"a", 0}, {"b", 1}, {"aa", 2}, {"aaaa", 3}, {"ab", 4}, {"\u0120", 5}};
  file["model"]["merges"] = List{"a a", "aa aa", "a b"};
  const auto tokenizer = folder.open(file);
  constexpr std::size_t kSize = 10'000'000;
  std::string mixed;
  while (mixed.size() < kSize) mixed += "ab ";
  for (const auto& text : {std::string(kSize, 'a'), std::string(kSize, ' '), std::string(kSize, '\n'), mixed}) {
    CHECK(seconds_of([&] { tokenizer.encode(text); }) < 30);
  }
  CHECK(tokenizer.encode(std::string(kSize, 'a')).size() == kSize / 4);
}

TEST_CASE("one tokenizer serves several threads") {
  const Folder folder;
  const auto tokenizer = folder.open(plain());
  std::atomic<int> wrong = 0;
  const auto work = [&] {
    for (int i = 0; i < 2000; ++i)
      wrong += tokenizer.encode(std::string(static_cast<std::size_t>(i % 50), 'a') + "b").back() > 2;
  };
  std::thread other(work);
  work();
  other.join();
  CHECK(wrong == 0);
}

TEST_CASE("the ends of a text come from tokenizer_config.json, else from config.json") {
  const Folder folder;
  auto file = plain();
  file["added_tokens"] = List{added(4, "<s>"), added(5, "</s>")};
  CHECK_FALSE(folder.open(file).begin_of_text());
  folder.put("config.json", R"({"bos_token_id": 1, "eos_token_id": [2, 3]})");
  CHECK(folder.open(file).begin_of_text() == 1);
  CHECK(folder.open(file).end_of_text() == 2);
  folder.put("tokenizer_config.json", R"({"bos_token": null, "eos_token": {"content": "</s>"}})");
  CHECK(folder.open(file).begin_of_text() == 1);
  CHECK(folder.open(file).end_of_text() == 5);
  folder.put("tokenizer_config.json", R"({"eos_token": "<nobody>"})");
  CHECK_THAT(folder.error(file), Contains("'<nobody>' is not a token"));
}

TEST_CASE("a directory without a tokenizer says how to make one, and digests follow the files") {
  const Folder folder;
  CHECK_FALSE(has_tokenizer(folder.directory.path()));
  CHECK_THROWS_WITH(HfTokenizer(folder.directory.path()), Contains("has no tokenizer") && Contains("save_pretrained"));
  folder.put("tokenizer.json", "{");
  CHECK_THROWS_WITH(HfTokenizer(folder.directory.path()), Contains("not valid JSON"));
  const auto before = tokenizer_digest(folder.directory.path());
  folder.put("tokenizer_config.json", "{}");
  CHECK(tokenizer_digest(folder.directory.path()) != before);
}
