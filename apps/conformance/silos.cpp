#include "conformance/silos.hpp"

#include <fmt/format.h>

#include "base/file.hpp"
#include "conformance/probes.hpp"

namespace hansa::conformance {
namespace {

// A word that stands in one document only.
std::string mark_of(std::size_t document, char silo) { return fmt::format("{}mark{:02}{}", silo, document, silo); }
std::string text_of_document(std::size_t document, char silo) {
  const std::string filling(3 + 5 * document % 23, static_cast<char>('a' + document));
  return fmt::format("This is {} of a silo, {}.", mark_of(document, silo), filling);
}

// The same documents as formats that data sources are likely to read.
std::vector<std::filesystem::path> write_silos(const std::filesystem::path& folder, char silo, std::size_t documents) {
  std::filesystem::create_directories(folder);
  std::string separated, lines, texts, pairs, chats;
  for (std::size_t i = 0; i < documents; ++i) {
    const auto text = text_of_document(i, silo);
    separated += (i ? "%\n" : "") + text + "\n";
    lines += text + "\n";
    texts += fmt::format("{{\"text\": \"{}\"}}\n", text);
    pairs += fmt::format(
        "{{\"instruction\": \"say\", \"prompt\": \"say\", \"input\": \"\", \"output\": \"{0}\", \"response\": \"{0}\", "
        "\"completion\": \"{0}\"}}\n",
        text);
    chats += fmt::format(
        "{{\"messages\": [{{\"role\": \"user\", \"content\": \"say\"}}, {{\"role\": \"assistant\", \"content\": "
        "\"{}\"}}]}}\n",
        text);
  }
  std::vector<std::filesystem::path> paths;
  for (const auto& [name, content] : {std::pair("separated.txt", separated),
                                      {"lines.txt", lines},
                                      {"texts.jsonl", texts},
                                      {"pairs.jsonl", pairs},
                                      {"chats.jsonl", chats}}) {
    paths.push_back(folder / name);
    write_file_atomically(paths.back(), content, Durability::Process);
  }
  return paths;
}

}  // namespace

Silos silos_for(const Subject& subject, const Tokenizer& tokenizer, std::size_t documents) {
  if (const auto named = subject.with.find("silo"); named != subject.with.end())
    return {named->second, named->second, false, documents};
  const auto folder = subject.scratch / fmt::format("silos-{}", documents);
  const auto first = write_silos(folder / "first", 'q', documents),
             second = write_silos(folder / "second", 'z', documents);
  std::string why;
  for (std::size_t i = 0; i < first.size(); ++i) {
    bool one_each = false;
    const auto said = sentence_of([&] {
      const auto source = subject.make<DataSource>();
      source->open(first[i], &tokenizer, kLongest);
      one_each = source->examples() == documents;
    });
    if (why.empty()) why = said;
    if (one_each) return {first[i], second[i], true, documents};
  }
  throw NotConcerned(
      fmt::format("it reads none of the silos made on the spot (plain text, JSON lines) as {} documents{}. Give a "
                  "small one: --with silo=PATH",
                  documents, why.empty() ? "" : ": " + why));
}

std::int64_t at(const at::Tensor& table, std::int64_t row, std::int64_t column) {
  return table.const_data_ptr<std::int64_t>()[row * table.size(1) + column];
}

void check_batch(const Batch& batch, std::int64_t rows, std::int64_t longest, const Tokenizer& tokenizer) {
  const auto& tokens = batch.tokens;
  hold(tokens.defined() && tokens.dim() == 2 && tokens.numel() > 0 && tokens.scalar_type() == at::kLong,
       "the tokens are no table of 64-bit ids");
  hold(tokens.size(0) <= rows, fmt::format("next({}) gives {} rows", rows, tokens.size(0)));
  hold(tokens.size(1) <= longest, fmt::format("a row has {} tokens; the longest is to be {}", tokens.size(1), longest));
  for (const auto& [name, table] :
       {std::pair("labels", batch.labels), {"positions", batch.positions}, {"segments", batch.segments}}) {
    if (!table.defined() && std::string_view(name) != "labels") continue;
    hold(
        table.defined() && table.sizes() == tokens.sizes() && table.scalar_type() == at::kLong && table.is_contiguous(),
        fmt::format("the {} are no table of 64-bit numbers of the tokens' shape", name));
  }
  hold(tokens.is_contiguous(), "the tokens are not contiguous");
  std::int64_t counted = 0;
  for (std::int64_t row = 0; row < tokens.size(0); ++row) {
    for (std::int64_t i = 0; i < tokens.size(1); ++i) {
      const auto token = at(tokens, row, i), label = at(batch.labels, row, i);
      hold(token >= 0 && token < tokenizer.size(),
           fmt::format("token {} of row {} is {}; the tokenizer has {}", i, row, token, tokenizer.size()));
      hold(label == -100 || (label >= 0 && label < tokenizer.size()),
           fmt::format("label {} of row {} is {}", i, row, label));
      if (label == -100) continue;
      ++counted;
      if (batch.segments.defined())
        hold(at(batch.segments, row, i) >= 0,
             fmt::format("row {}: the label at {} counts and stands in padding", row, i));
      if (!batch.positions.defined()) continue;
      const auto position = at(batch.positions, row, i);
      hold(position >= 0 && position < longest, fmt::format("row {}: the position at {} is {}", row, i, position));
    }
  }
  hold(batch.counted == counted, fmt::format("it says that {} labels count; {} are not -100", batch.counted, counted));
  hold(batch.documents >= 0 && batch.bytes >= 0, "documents or bytes are below zero");
}

Pass whole_pass(DataSource& source, std::int64_t rows, std::int64_t longest, const Tokenizer& tokenizer) {
  Pass pass;
  source.rewind();
  while (auto batch = source.next(rows)) {
    check_batch(*batch, rows, longest, tokenizer);
    pass.documents += batch->documents;
    pass.counted += batch->counted;
    pass.bytes += batch->bytes;
    pass.batches.push_back(std::move(*batch));
    hold(pass.batches.size() < kTooMany,
         fmt::format("a pass in file order over {} documents does not end after {} batches", source.examples(),
                     kTooMany));
  }
  return pass;
}

std::vector<std::size_t> marks_in(std::span<const std::string> texts) {
  std::vector<std::size_t> marks;
  for (const auto& text : texts)
    for (std::size_t place = text.find("mark"); place != std::string::npos; place = text.find("mark", place + 1))
      if (place + 6 <= text.size())
        marks.push_back(static_cast<std::size_t>(std::stoul("0" + text.substr(place + 4, 2))));
  return marks;
}
void append_rows(std::vector<std::string>& to, const Batch& batch, const Tokenizer& tokenizer) {
  for (std::int64_t row = 0; row < batch.labels.size(0); ++row) {
    std::vector<std::int64_t> ids;
    for (std::int64_t i = 0; i < batch.labels.size(1); ++i)
      if (const auto label = at(batch.labels, row, i); label != -100) ids.push_back(label);
    to.push_back(tokenizer.decode(ids));
  }
}
std::vector<std::string> rows_of(const Pass& pass, const Tokenizer& tokenizer) {
  std::vector<std::string> rows;
  for (const auto& batch : pass.batches) append_rows(rows, batch, tokenizer);
  return rows;
}
bool rows_show_marks(const Read& read, DataSource& source) {
  return read.silos.marked &&
         marks_in(rows_of(whole_pass(source, 1, kLongest, *read.tokenizer), *read.tokenizer)).size() ==
             read.silos.documents;
}
namespace {

NamedTensors trace_of(const Batch& batch, const std::string& name) {
  NamedTensors trace{{name + " tokens", batch.tokens.clone()}, {name + " labels", batch.labels.clone()}};
  if (batch.positions.defined()) trace.emplace_back(name + " positions", batch.positions.clone());
  if (batch.segments.defined()) trace.emplace_back(name + " segments", batch.segments.clone());
  for (const auto value : {batch.bytes, batch.counted, batch.documents})
    trace.emplace_back(name + " counts", number(static_cast<double>(value)));
  return trace;
}
}  // namespace

NamedTensors some_batches(DataSource& source, std::int64_t rows, int count) {
  NamedTensors all;
  for (int i = 0; i < count; ++i) {
    const auto batch = source.next(rows);
    if (!batch) break;
    for (auto& one : trace_of(*batch, fmt::format("batch {}:", i))) all.push_back(std::move(one));
  }
  return all;
}

}  // namespace hansa::conformance
