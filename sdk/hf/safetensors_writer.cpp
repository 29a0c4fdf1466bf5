#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "hf/safetensors.hpp"

namespace hansa::hf {
namespace {

struct FormatName {
  std::string_view name;
  int order;  // the reference writes the greatest first
};

FormatName format_name(DType type) {
  switch (type) {
    case DType::u8: return {"U8", 0};
    case DType::i8: return {"I8", 1};
    case DType::f8e4m3: return {"F8_E4M3", 2};
    case DType::f16: return {"F16", 3};
    case DType::bf16: return {"BF16", 4};
    case DType::i32: return {"I32", 5};
    case DType::f32: return {"F32", 6};
    case DType::i64: return {"I64", 7};
  }
  throw Error("a tensor of an unknown dtype cannot be written");
}

std::uint64_t bytes_of(const TensorSpec& spec) {
  return static_cast<std::uint64_t>(spec.elements()) * size_of(spec.dtype);
}

}  // namespace

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path, std::vector<TensorSpec> tensors,
                                     const std::map<std::string, std::string>& metadata)
    : path_(path), temporary_(path) {
  temporary_ += fmt::format(".tmp{}", getpid());
  std::sort(tensors.begin(), tensors.end(), [](const TensorSpec& a, const TensorSpec& b) {
    const int left = format_name(a.dtype).order, right = format_name(b.dtype).order;
    return left != right ? left > right : a.name < b.name;
  });
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::uint64_t offset = 0;
  for (auto& spec : tensors) {
    const auto end = offset + bytes_of(spec);
    header[spec.name] = {
        {"dtype", format_name(spec.dtype).name}, {"shape", spec.shape}, {"data_offsets", {offset, end}}};
    const auto name = spec.name;
    if (!places_.emplace(name, Place{std::move(spec), offset}).second) {
      throw Error(fmt::format("{}: two tensors are named '{}'", path.string(), name));
    }
    offset = end;
  }
  auto text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');  // the data begin aligned
  std::string length(8, '\0');
  for (std::size_t i = 0; i < 8; ++i) length[i] = static_cast<char>(text.size() >> (8 * i));
  text.insert(0, length);
  for (auto& [name, place] : places_) place.offset += text.size();

  file_ = open_file(temporary_, O_WRONLY | O_CREAT | O_TRUNC);
  try {
    write_all(file_.get(), std::as_bytes(std::span<const char>(text)), temporary_);
  } catch (...) {
    unlink(temporary_.c_str());
    throw;
  }
}

SafetensorsWriter::~SafetensorsWriter() {
  if (file_) unlink(temporary_.c_str());
}

SafetensorsWriter::Place& SafetensorsWriter::place_of(std::string_view name) {
  const auto at = places_.find(name);
  if (at == places_.end()) throw Error(fmt::format("{}: the tensor '{}' was not announced", path_.string(), name));
  return at->second;
}

const TensorSpec& SafetensorsWriter::spec(std::string_view name) const {
  return const_cast<SafetensorsWriter*>(this)->place_of(name).spec;
}

void SafetensorsWriter::write(std::string_view name, std::span<const std::byte> bytes) {
  auto& place = place_of(name);
  if (place.written) throw Error(fmt::format("{}: the tensor '{}' was written twice", path_.string(), name));
  if (bytes.size() != bytes_of(place.spec)) {
    throw Error(fmt::format("{}: the tensor '{}' has {} bytes, {} were announced", path_.string(), name, bytes.size(),
                            bytes_of(place.spec)));
  }
  write_all_at(file_.get(), place.offset, bytes, temporary_);
  place.written = true;
}

void SafetensorsWriter::finish() {
  for (const auto& [name, place] : places_) {
    if (!place.written) throw Error(fmt::format("{}: the tensor '{}' was never written", path_.string(), name));
  }
  rename_into_place(temporary_, path_, Durability::Process);
  file_ = FileDescriptor();
}

}  // namespace hansa::hf
