#include "gguf/writer.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <bit>
#include <cstring>
#include <set>

#include <fmt/format.h>

namespace hansa::gguf {
namespace {

static_assert(std::endian::native == std::endian::little, "values are written as they lie in memory");

constexpr std::uint32_t kVersion = 3;
constexpr std::uint64_t kAlignment = 32;
constexpr std::size_t kLongestName = 63;  // llama.cpp keeps 64 bytes for a tensor's name
constexpr std::uint32_t kArray = 9;

std::uint64_t aligned(std::uint64_t offset) { return (offset + kAlignment - 1) / kAlignment * kAlignment; }

// Numbers of types as the format has them.
constexpr std::uint32_t type_number(std::uint32_t) { return 4; }
constexpr std::uint32_t type_number(std::int32_t) { return 5; }
constexpr std::uint32_t type_number(float) { return 6; }
constexpr std::uint32_t type_number(bool) { return 7; }
std::uint32_t type_number(const std::string&) { return 8; }

struct Header {
  std::string bytes;

  template <class T>
  requires std::is_arithmetic_v<T>
  void put(T value) {
    char raw[sizeof value];
    std::memcpy(raw, &value, sizeof value);
    bytes.append(raw, sizeof value);
  }
  void put(const std::string& text) {
    put(static_cast<std::uint64_t>(text.size()));
    bytes += text;
  }
  template <class T>
  void put_typed(const T& value) {
    put(type_number(value));
    put(value);
  }
  template <class T>
  void put_typed(const std::vector<T>& values) {
    put(kArray);
    put(type_number(T{}));
    put(static_cast<std::uint64_t>(values.size()));
    for (const auto& one : values) put(one);
  }
};

std::string header_of(const Metadata& metadata, const std::vector<Tensor>& tensors) {
  Header header{"GGUF"};
  header.put(kVersion);
  header.put(static_cast<std::uint64_t>(tensors.size()));
  header.put(static_cast<std::uint64_t>(metadata.size()));
  for (const auto& [key, value] : metadata) {
    header.put(key);
    std::visit([&](const auto& held) { header.put_typed(held); }, value);
  }
  std::uint64_t offset = 0;
  for (const auto& tensor : tensors) {
    header.put(tensor.name);
    header.put(static_cast<std::uint32_t>(tensor.shape.size()));
    for (auto side = tensor.shape.rbegin(); side != tensor.shape.rend(); ++side)
      header.put(static_cast<std::uint64_t>(*side));
    header.put(static_cast<std::uint32_t>(tensor.number));
    header.put(offset);
    offset = aligned(offset + tensor.bytes());
  }
  header.bytes.resize(aligned(header.bytes.size()), '\0');
  return header.bytes;
}

void require_distinct(const Metadata& metadata, const std::filesystem::path& path) {
  std::set<std::string_view> keys;
  for (const auto& [key, value] : metadata)
    if (!keys.insert(key).second) throw Error(fmt::format("{}: two values for '{}'", path.string(), key));
}

}  // namespace

std::size_t size_of(Number number) { return number == Number::f32 ? 4 : 2; }

std::string_view name_of(Number number) {
  return number == Number::f32 ? "f32" : number == Number::f16 ? "f16" : "bf16";
}

std::uint64_t Tensor::bytes() const {
  std::uint64_t count = size_of(number);
  for (const auto side : shape) count *= static_cast<std::uint64_t>(side);
  return count;
}

Writer::Writer(const std::filesystem::path& path, const Metadata& metadata, const std::vector<Tensor>& tensors)
    : path_(path), temporary_(path) {
  temporary_ += fmt::format(".tmp{}", getpid());
  require_distinct(metadata, path);
  std::uint64_t offset = 0;
  for (const auto& tensor : tensors) {
    if (tensor.name.size() > kLongestName)
      throw Error(fmt::format("{}: the name '{}' is longer than {} bytes", path.string(), tensor.name, kLongestName));
    if (!places_.emplace(tensor.name, Place{offset, tensor.bytes()}).second)
      throw Error(fmt::format("{}: two tensors are named '{}'", path.string(), tensor.name));
    offset = aligned(offset + tensor.bytes());
  }
  const auto header = header_of(metadata, tensors);
  for (auto& [name, place] : places_) place.offset += header.size();
  file_ = open_file(temporary_, O_WRONLY | O_CREAT | O_TRUNC);
  try {
    write_all(file_.get(), std::as_bytes(std::span(header)), temporary_);
    // The padding after the last tensor belongs to the file too.
    if (ftruncate(file_.get(), static_cast<off_t>(header.size() + offset)) != 0) throw_errno("size", temporary_);
  } catch (...) {
    unlink(temporary_.c_str());
    throw;
  }
}

Writer::~Writer() {
  if (file_) unlink(temporary_.c_str());
}

void Writer::write(std::string_view name, std::span<const std::byte> bytes) {
  const auto at = places_.find(name);
  if (at == places_.end()) throw Error(fmt::format("{}: the tensor '{}' was not announced", path_.string(), name));
  auto& place = at->second;
  if (place.written) throw Error(fmt::format("{}: the tensor '{}' was written twice", path_.string(), name));
  if (bytes.size() != place.bytes)
    throw Error(fmt::format("{}: the tensor '{}' has {} bytes, {} were announced", path_.string(), name, bytes.size(),
                            place.bytes));
  write_all_at(file_.get(), place.offset, bytes, temporary_);
  place.written = true;
}

void Writer::finish() {
  for (const auto& [name, place] : places_)
    if (!place.written) throw Error(fmt::format("{}: the tensor '{}' was not written", path_.string(), name));
  rename_into_place(temporary_, path_, Durability::Process);
  file_ = {};
}

}  // namespace hansa::gguf
