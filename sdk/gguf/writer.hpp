// A GGUF file (version 3, little endian): metadata, a table of tensors, their bytes at multiples of 32. Torch-free. Called by
// exports, one thread. Nothing is at `path` until finish(); without it the temporary file goes away. Throws Error, DiskFull.
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/file.hpp"

namespace hansa::gguf {

using Value = std::variant<std::uint32_t, std::int32_t, float, bool, std::string, std::vector<std::string>,
                           std::vector<std::int32_t>, std::vector<float>>;
using Metadata = std::vector<std::pair<std::string, Value>>;  // written in this order

enum class Number : std::uint32_t { f32 = 0, f16 = 1, bf16 = 30 };  // the format's own numbers
std::size_t size_of(Number);
std::string_view name_of(Number);

struct Tensor {
  std::string name;
  std::vector<std::int64_t> shape;  // slowest first, as LibTorch has it; the file has it the other way round
  Number number = Number::f32;
  std::uint64_t bytes() const;
};

class Writer {
 public:
  Writer(const std::filesystem::path& path, const Metadata& metadata, const std::vector<Tensor>& tensors);
  ~Writer();
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;
  void write(std::string_view name, std::span<const std::byte> bytes);  // any order, each once
  void finish();                                                        // throws when a tensor was not written

 private:
  struct Place {
    std::uint64_t offset = 0, bytes = 0;
    bool written = false;
  };
  std::filesystem::path path_, temporary_;
  FileDescriptor file_;
  std::map<std::string, Place, std::less<>> places_;
};

}  // namespace hansa::gguf
