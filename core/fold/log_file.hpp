// What a rule appended on the way to one version: entries of Log channels, which become a packet of their own, and new values
// of the rule's Latest channels, which become part of the version. Tensors wait on disk, not in memory: the log of a
// large model may be larger than its adapter. Fold thread. Throws Error, DiskFull.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>
#include <hansa/types.hpp>

#include "base/file.hpp"
#include "fold/packet_file.hpp"

namespace hansa::fold {

class LogFile {
 public:
  // `down` says which channels there are and what fits them. The waiting file stands beside `final_name`.
  LogFile(std::filesystem::path final_name, const std::vector<Channel>& down, Durability);
  ~LogFile();
  LogFile(const LogFile&) = delete;
  LogFile& operator=(const LogFile&) = delete;

  void append(std::string_view channel, std::string_view tensor, const at::Tensor&);  // real tensors must be finite
  // Bytes of a tensor appended to a Latest channel; empty: nothing was.
  std::vector<std::byte> latest(std::string_view channel, std::string_view tensor) const;
  bool moved(std::string_view channel, std::string_view tensor) const;
  void write(Epoch);  // the packet of all Log channels, under the final name; nothing when nothing was appended to any

 private:
  struct Entry {
    const Channel* channel;
    std::string tensor;
    DType dtype;
    std::vector<std::int64_t> shape;
    std::uint64_t offset, bytes;
  };
  std::vector<std::byte> read(const Entry&) const;
  std::filesystem::path final_name_, waiting_name_;
  const std::vector<Channel>& down_;
  Durability durability_;
  FileDescriptor waiting_;  // opened by the first append
  std::vector<Entry> entries_;
  std::uint64_t size_ = 0;
};

}  // namespace hansa::fold
