// Files of tensors in the safetensors format, read through a memory map and written as a stream; a checkpoint is a directory
// of one or several of them. No torch here: see tensors.hpp. Called when a model is opened, saved or described.
//
// A SafetensorsFile owns its map; views into it (names, bytes) live as long as it does. Reading is safe from any thread.
// What does not fit is refused as the reference library refuses it: all throw Error with the file, the tensor and the reason.
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <hansa/types.hpp>

#include "base/file.hpp"

namespace hansa::hf {

struct StoredTensor {
  std::string name;
  std::string stored_dtype;    // as the file says: "BF16", "F64" ...
  std::optional<DType> dtype;  // nothing: known to the format but not to us; "BOOL" too
  std::vector<std::int64_t> shape;
  std::span<const std::byte> bytes;  // little endian, contiguous, perhaps unaligned
  std::int64_t elements() const;
};

class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::filesystem::path& path);
  const std::filesystem::path& path() const { return path_; }
  const std::vector<StoredTensor>& tensors() const { return tensors_; }  // in the order of their bytes
  const StoredTensor* find(std::string_view name) const;                 // null: not there
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

 private:
  void read_header(std::string_view header, std::span<const std::byte> data);
  void check_layout(std::size_t data_size, const std::vector<std::uint64_t>& begins) const;
  std::filesystem::path path_;
  MappedFile file_;
  std::vector<StoredTensor> tensors_;
  std::map<std::string, std::size_t, std::less<>> index_;
  std::map<std::string, std::string> metadata_;
};

// A directory with model.safetensors, or with model.safetensors.index.json and the shards that it names.
class Checkpoint {
 public:
  explicit Checkpoint(const std::filesystem::path& directory);
  std::vector<std::string> names() const;                 // sorted
  const StoredTensor* find(std::string_view name) const;  // null: not there
  const StoredTensor& at(std::string_view name) const;    // throws when not there
  const std::filesystem::path& directory() const { return directory_; }

 private:
  void add_file(const std::filesystem::path& path);
  void check_index(const std::filesystem::path& index) const;
  std::filesystem::path directory_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, const StoredTensor*, std::less<>> tensors_;
};

// The weights files of a checkpoint, in name order.
std::vector<std::filesystem::path> weight_files(const std::filesystem::path& directory);
// SHA-256, in hexadecimal, over the names and digests of config.json and the weights files: the identity of a base.
std::string checkpoint_digest(const std::filesystem::path& directory);

// Writes the bytes that the reference library would: tensors by descending alignment, then by name. Nothing is at `path`
// until finish(); without it the temporary file goes away.
class SafetensorsWriter {
 public:
  SafetensorsWriter(const std::filesystem::path& path, std::vector<TensorSpec> tensors,
                    const std::map<std::string, std::string>& metadata = {{"format", "pt"}});
  ~SafetensorsWriter();
  SafetensorsWriter(const SafetensorsWriter&) = delete;
  SafetensorsWriter& operator=(const SafetensorsWriter&) = delete;
  const TensorSpec& spec(std::string_view name) const;                  // throws for a name that was not announced
  void write(std::string_view name, std::span<const std::byte> bytes);  // any order, each once
  void finish();                                                        // throws when a tensor was not written

 private:
  struct Place {
    TensorSpec spec;
    std::uint64_t offset = 0;
    bool written = false;
  };
  Place& place_of(std::string_view name);
  std::filesystem::path path_, temporary_;
  FileDescriptor file_;
  std::map<std::string, Place, std::less<>> places_;
};

}  // namespace hansa::hf
