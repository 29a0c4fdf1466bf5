#include "hf/safetensors.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "hf/code_points.hpp"
#include "hf/json_file.hpp"

namespace hansa::hf {
namespace {

constexpr std::size_t kLengthBytes = 8;
constexpr std::uint64_t kLongestHeader = 100'000'000;  // the reference's limit

struct FormatType {
  std::string_view name;
  std::size_t bytes;
  std::optional<DType> ours;
};
// What the format knows, in bytes; its types of less than a byte we refuse.
constexpr FormatType kFormatTypes[] = {
    {"F32", 4, DType::f32}, {"F16", 2, DType::f16}, {"BF16", 2, DType::bf16}, {"F8_E4M3", 1, DType::f8e4m3},
    {"I8", 1, DType::i8},   {"U8", 1, DType::u8},   {"I32", 4, DType::i32},   {"I64", 8, DType::i64},
    {"BOOL", 1, {}},        {"F64", 8, {}},         {"F8_E5M2", 1, {}},       {"I16", 2, {}},
    {"U16", 2, {}},         {"U32", 4, {}},         {"U64", 8, {}},           {"C64", 8, {}},
};

std::string known_types() {
  std::string names;
  for (const auto& type : kFormatTypes) names += fmt::format("{}{}", names.empty() ? "" : ", ", type.name);
  return names;
}

std::uint64_t little_endian(std::span<const std::byte> bytes) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < kLengthBytes; ++i) value |= std::to_integer<std::uint64_t>(bytes[i]) << (8 * i);
  return value;
}

std::vector<std::uint64_t> whole_numbers(const nlohmann::json& entry, const char* key, const std::string& where) {
  const auto at = entry.find(key);
  const bool good = at != entry.end() && at->is_array() &&
                    std::all_of(at->begin(), at->end(), [](const auto& value) { return value.is_number_unsigned(); });
  if (!good) throw Error(fmt::format("{}: {} is missing or not a list of whole numbers", where, key));
  return at->template get<std::vector<std::uint64_t>>();
}

// Bytes of a shape; nothing when it does not fit into 63 bits.
std::optional<std::uint64_t> bytes_of(const std::vector<std::uint64_t>& shape, std::uint64_t element) {
  constexpr auto kMost = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  std::uint64_t bytes = element;
  for (const auto extent : shape) {
    if (extent > kMost || (extent != 0 && bytes > kMost / extent)) return std::nullopt;
    bytes *= extent;
  }
  return bytes;
}

}  // namespace

std::int64_t StoredTensor::elements() const {
  std::int64_t count = 1;
  for (const auto extent : shape) count *= extent;
  return count;
}

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) : path_(path), file_(path) {
  const auto bytes = file_.bytes();
  if (bytes.size() < kLengthBytes) {
    throw Error(
        fmt::format("{} has {} bytes, too few for a safetensors file; fetch it again", path.string(), bytes.size()));
  }
  const auto length = little_endian(bytes);
  if (length > kLongestHeader) {
    throw Error(fmt::format("{} is not a safetensors file: its header would have {} bytes", path.string(), length));
  }
  if (length > bytes.size() - kLengthBytes) {
    throw Error(fmt::format(
        "{} is cut off: its header of {} bytes reaches beyond the end of the file ({} bytes); fetch it again",
        path.string(), length, bytes.size()));
  }
  const std::string_view header(reinterpret_cast<const char*>(bytes.data()) + kLengthBytes, length);
  if (!header.starts_with('{') || first_invalid_utf8(header)) {
    throw Error(fmt::format("{} is not a safetensors file: its header is not a JSON object", path.string()));
  }
  read_header(header, bytes.subspan(kLengthBytes + length));
}

void SafetensorsFile::read_header(std::string_view text, std::span<const std::byte> data) {
  const auto header = parse_json(text, path_.string() + ": the header");
  std::vector<std::pair<std::uint64_t, StoredTensor>> found;  // by begin
  for (const auto& [name, entry] : header.items()) {
    const auto where = fmt::format("{}: tensor '{}'", path_.string(), name);
    if (!entry.is_object()) throw Error(where + " is not described by a JSON object");
    if (name == "__metadata__") {
      for (const auto& [key, value] : entry.items()) {
        if (!value.is_string()) throw Error(fmt::format("{}: the metadata '{}' is not a text", path_.string(), key));
        metadata_[key] = value.get<std::string>();
      }
      continue;
    }
    const auto type_name = text_of(entry, "dtype", where);
    const auto type = std::find_if(std::begin(kFormatTypes), std::end(kFormatTypes),
                                   [&](const auto& known) { return known.name == type_name; });
    if (type == std::end(kFormatTypes)) {
      throw Error(fmt::format("{}: dtype '{}' is not known; known: {}", where, type_name, known_types()));
    }
    const auto shape = whole_numbers(entry, "shape", where);
    const auto offsets = whole_numbers(entry, "data_offsets", where);
    if (offsets.size() != 2 || offsets[1] < offsets[0])
      throw Error(where + ": data_offsets are not a begin and an end");
    if (offsets[1] > data.size()) {
      throw Error(fmt::format("{} ends at byte {} of the data, which has {}: the file is cut off; fetch it again",
                              where, offsets[1], data.size()));
    }
    const auto bytes = bytes_of(shape, type->bytes);
    if (bytes != offsets[1] - offsets[0]) {
      throw Error(fmt::format("{}: its shape and dtype {} need {} bytes, its offsets give {}", where, type_name,
                              bytes ? fmt::to_string(*bytes) : "too many", offsets[1] - offsets[0]));
    }
    found.push_back(
        {offsets[0], {name, type_name, type->ours, {shape.begin(), shape.end()}, data.subspan(offsets[0], *bytes)}});
  }
  std::stable_sort(found.begin(), found.end(), [](const auto& a, const auto& b) {
    return std::pair(a.first, a.second.bytes.size()) < std::pair(b.first, b.second.bytes.size());
  });
  std::vector<std::uint64_t> begins;
  for (auto& [begin, tensor] : found) {
    index_.emplace(tensor.name, tensors_.size());
    begins.push_back(begin);
    tensors_.push_back(std::move(tensor));
  }
  check_layout(data.size(), begins);
}

// The format wants the data covered without overlaps and without holes.
void SafetensorsFile::check_layout(std::size_t data_size, const std::vector<std::uint64_t>& begins) const {
  std::uint64_t end = 0;
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    if (begins[i] != end) {
      throw Error(fmt::format("{}: tensor '{}' begins at byte {} of the data, {} byte {} where {} ends", path_.string(),
                              tensors_[i].name, begins[i],
                              begins[i] < end ? "overlapping what is before" : "leaving a hole after", end,
                              i == 0 ? "the header" : "'" + tensors_[i - 1].name + "'"));
    }
    end += tensors_[i].bytes.size();
  }
  if (end != data_size) {
    throw Error(
        fmt::format("{}: the tensors end at byte {} of the data, but it has {}", path_.string(), end, data_size));
  }
}

const StoredTensor* SafetensorsFile::find(std::string_view name) const {
  const auto at = index_.find(name);
  return at == index_.end() ? nullptr : &tensors_[at->second];
}

}  // namespace hansa::hf
