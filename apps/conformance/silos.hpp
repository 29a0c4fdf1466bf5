// Silos made on the spot, and what is seen of them through a data source. One thread.
#pragma once
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <hansa/data_source.hpp>

#include "conformance/partners.hpp"

namespace hansa::conformance {

inline constexpr std::size_t kDocuments = 14;
inline constexpr std::int64_t kLongest = 128;
inline constexpr int kTooMany = 10000;  // batches

// A silo that this source reads, and a second one. `marked`: made on the spot, with a mark in each document. Throws
// NotConcerned when it reads none of the formats.
struct Silos {
  std::filesystem::path first, second;
  bool marked = true;
  std::size_t documents = kDocuments;
};
Silos silos_for(const Subject&, const Tokenizer&, std::size_t documents = kDocuments);

struct Read {
  explicit Read(const Subject& subject, std::size_t documents = kDocuments)
      : tokenizer(tokenizer_for(subject)), silos(silos_for(subject, *tokenizer, documents)) {}
  Instance<DataSource> open(const Subject& subject, std::int64_t longest = kLongest) const {
    auto source = subject.make<DataSource>();
    source->open(silos.first, tokenizer.get(), longest);
    return source;
  }
  std::shared_ptr<Tokenizer> tokenizer;
  Silos silos;
};

std::int64_t at(const at::Tensor& table, std::int64_t row, std::int64_t column);
// Its tensors fit each other, rows and length are as asked for, counts are true. Throws Broken.
void check_batch(const Batch&, std::int64_t rows, std::int64_t longest, const Tokenizer&);

struct Pass {
  std::vector<Batch> batches;
  std::int64_t documents = 0, counted = 0, bytes = 0;
};
Pass whole_pass(DataSource&, std::int64_t rows, std::int64_t longest, const Tokenizer&);  // in file order, checked

// The labels of each row as text, and the documents that texts tell of, in order: numbers of marks.
void append_rows(std::vector<std::string>& to, const Batch&, const Tokenizer&);
std::vector<std::string> rows_of(const Pass&, const Tokenizer&);
std::vector<std::size_t> marks_in(std::span<const std::string> texts);
// Do rows hold whole documents, so that their marks can be found whatever their order?
bool rows_show_marks(const Read&, DataSource&);

NamedTensors some_batches(DataSource&, std::int64_t rows, int count);  // as a trace

}  // namespace hansa::conformance
