#include "gguf/export.hpp"

#include <algorithm>
#include <cctype>

#include <ATen/ops/add.h>
#include <ATen/ops/all.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/mul.h>

#include <fmt/format.h>

#include "gguf/family.hpp"
#include "gguf/vocabulary.hpp"

namespace hansa::gguf {
namespace {

struct Entry {
  Tensor tensor;
  at::Tensor values;  // fp32; of one entry only the copy in the file's type is made
};

// [heads, 2, half, ...] to [heads, half, 2, ...]: rows that turn together become neighbours.
at::Tensor neighbours(const at::Tensor& rows, std::int64_t heads) {
  const auto half = rows.size(0) / heads / 2;
  return rows.unflatten(0, {heads, 2, half}).transpose(1, 2).flatten(0, 2);
}

at::Tensor changed(const at::Tensor& values, Change change, const Description& description) {
  switch (change) {
    case Change::None: return values;
    case Change::QueryRows: return neighbours(values, description.query_heads);
    case Change::KeyRows: return neighbours(values, description.key_value_heads);
    case Change::PlusOne: return values + 1;
    case Change::Transposed: return values.dim() == 2 ? values.t() : values;
  }
  throw Error("a change of rows that is not known");
}

Entry entry_of(std::string name, const at::Tensor& values, Number number) {
  const auto wanted = values.dim() < 2 ? Number::f32 : number;
  return {{std::move(name), values.sizes().vec(), wanted}, values};
}

at::Tensor in_type(const Entry& entry) {
  const auto type = entry.tensor.number == Number::f32   ? at::kFloat
                    : entry.tensor.number == Number::f16 ? at::kHalf
                                                         : at::kBFloat16;
  auto values = entry.values.to(at::kFloat).to(type).contiguous();
  if (type == at::kHalf && !at::isfinite(values).all().item<bool>())
    throw Error(
        fmt::format("the tensor '{}' has values beyond what f16 can hold; choose bf16 or f32", entry.tensor.name));
  return values;
}

void write(const std::filesystem::path& file, const Metadata& metadata, const std::vector<Entry>& entries) {
  std::vector<Tensor> table;
  for (const auto& entry : entries) table.push_back(entry.tensor);
  Writer writer(file, metadata, table);
  for (const auto& entry : entries) {
    const auto values = in_type(entry);
    writer.write(entry.tensor.name, {static_cast<const std::byte*>(values.const_data_ptr()), values.nbytes()});
  }
  writer.finish();
}

// The numbers by which llama.cpp calls what most tensors of a file are.
std::uint32_t file_type(Number number) { return number == Number::f32 ? 0 : number == Number::f16 ? 1 : 32; }

// llama.cpp takes a model with "phi3" in its name to have that family's special tokens, and fails where they are missing.
std::string name_for(const std::string& directory, const Metadata& vocabulary) {
  std::string lower;
  for (const char c : directory) lower += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  if (lower.find("phi3") == lower.npos && lower.find("phi-3") == lower.npos) return directory;
  for (const auto& [key, value] : vocabulary) {
    if (key != "tokenizer.ggml.tokens") continue;
    const auto& tokens = std::get<std::vector<std::string>>(value);
    for (const char* wanted : {"</s>", "<unk>", "<s>", "<|endoftext|>"})
      if (std::find(tokens.begin(), tokens.end(), wanted) == tokens.end()) return "model";
  }
  return directory;
}

std::string name_of_directory(const std::filesystem::path& directory) {
  return std::filesystem::weakly_canonical(directory).filename().string();
}

Metadata general(const Description& description, const std::string& type, const std::string& name, Number number) {
  return {{"general.architecture", description.architecture},
          {"general.type", type},
          {"general.name", name},
          {"general.file_type", file_type(number)}};
}

// What a module gets, as one pair: the sum of products is the product of what is put side by side.
struct Pair {
  at::Tensor A, B;
  double scale = 0;
};

Pair joined(const std::vector<LowRank>& parts) {
  if (parts.size() == 1) return {parts[0].A, parts[0].B, parts[0].scale};
  std::vector<at::Tensor> A, B;
  for (const auto& part : parts) {
    A.push_back(part.A);
    B.push_back(part.B * part.scale);
  }
  return {at::cat(A, 0), at::cat(B, 1), 1};
}

std::vector<std::pair<std::string, Pair>> pairs_of(std::span<const Injection> injections) {
  std::vector<std::pair<std::string, std::vector<LowRank>>> modules;
  for (const auto& injection : injections) {
    const auto* part = std::get_if<LowRank>(&injection.what);
    if (!part || part->magnitude.defined() || part->inner.defined() || part->outer.defined())
      throw Error(fmt::format(
          "the adapter does more to '{}' than add a pair of low rank, which is all that a GGUF adapter can hold; write "
          "the merged model instead (--merged)",
          injection.module));
    if (modules.empty() || modules.back().first != injection.module) modules.push_back({injection.module, {}});
    modules.back().second.push_back(*part);
  }
  std::vector<std::pair<std::string, Pair>> pairs;
  for (const auto& [module, parts] : modules) pairs.emplace_back(module, joined(parts));
  return pairs;
}

}  // namespace

Remarks export_model(const std::filesystem::path& file, const std::filesystem::path& base,
                     const std::vector<std::pair<std::string, at::Tensor>>& tensors, Number number) {
  auto description = describe(base);
  const auto vocabulary = vocabulary_of(base, description.vocabulary);
  auto metadata = general(description, "model", name_for(name_of_directory(base), vocabulary), number);
  metadata.insert(metadata.end(), description.numbers.begin(), description.numbers.end());
  metadata.insert(metadata.end(), vocabulary.begin(), vocabulary.end());
  std::vector<Entry> entries;
  for (const auto& [name, values] : tensors) {
    const auto dot = name.rfind('.');
    const auto place = description.place(name.substr(0, dot));
    entries.push_back(entry_of(place.name + name.substr(dot), changed(values, place.change, description), number));
  }
  for (const auto& [name, values] : description.extra)
    entries.push_back(entry_of(
        name, at::from_blob(const_cast<float*>(values.data()), {static_cast<std::int64_t>(values.size())}), number));
  write(file, metadata, entries);
  return description.remarks;
}

Remarks export_adapter(const std::filesystem::path& file, const std::filesystem::path& base,
                       std::span<const Injection> injections, Number number) {
  const auto description = describe(base);
  const auto pairs = pairs_of(injections);
  if (pairs.empty()) throw Error("the adapter has no module of its own: there is nothing to write");
  // One number for all: llama.cpp scales by it over a pair's rank. What differs goes into B.
  const auto rank = [](const Pair& pair) { return static_cast<double>(pair.A.size(0)); };
  const double alpha = pairs[0].second.scale * rank(pairs[0].second);
  std::vector<Entry> entries;
  for (const auto& [module, pair] : pairs) {
    const auto place = description.place(module);
    const auto change = place.change == Change::Transposed ? Change::None : place.change;  // pairs are [out, in] always
    auto B = changed(pair.B.detach(), change, description);
    if (const double by = pair.scale * rank(pair) / alpha; by != 1) B = B * by;
    entries.push_back(entry_of(place.name + ".weight.lora_a", pair.A.detach(), number));
    entries.push_back(entry_of(place.name + ".weight.lora_b", B, number));
  }
  auto metadata = general(description, "adapter", name_of_directory(base) + " adapter", number);
  metadata.emplace_back("adapter.type", std::string("lora"));
  metadata.emplace_back("adapter.lora.alpha", static_cast<float>(alpha));
  write(file, metadata, entries);
  return description.remarks;
}

}  // namespace hansa::gguf
