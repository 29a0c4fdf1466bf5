#include "fold/packet_file.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <array>

#include <fmt/format.h>

namespace hansa::fold {

PacketFileWriter::PacketFileWriter(std::filesystem::path final_name, PacketContents contents, Durability durability)
    : final_name_(std::move(final_name)), durability_(durability), plan_(std::move(contents)) {
  temporary_ = final_name_;
  temporary_ += ".tmp";
  file_ = open_file(temporary_, O_RDWR | O_CREAT | O_TRUNC);
  write_all_at(file_.get(), 0, plan_.head(), temporary_);
  checksum_.add(plan_.head());
  hashed_ = plan_.head().size();
}

PacketFileWriter::~PacketFileWriter() {
  if (!finished_) unlink(temporary_.c_str());
}

void PacketFileWriter::put(const Code& leaf, std::uint64_t offset, std::span<const std::byte> bytes) {
  if (leaf.coded || offset + bytes.size() > leaf.bytes) {
    throw Error(fmt::format("{}: {} bytes at {} do not fit a leaf of {} bytes", final_name_.string(), bytes.size(),
                            offset, leaf.bytes));
  }
  write_all_at(file_.get(), leaf.offset + offset, bytes, temporary_);
  put_ += bytes.size();
  hash_while_in_order(leaf.offset, offset, bytes);
}

// Groups usually come in layout order; then the checksum is done while the bytes are still in the cache.
void PacketFileWriter::hash_while_in_order(std::uint64_t leaf_offset, std::uint64_t offset,
                                           std::span<const std::byte> bytes) {
  static constexpr std::array<std::byte, kPacketAlignment> kZeros{};
  const auto& leaves = plan_.leaves();
  while (next_leaf_ < leaves.size() && leaves[next_leaf_]->bytes == in_leaf_) {  // done, or empty
    ++next_leaf_;
    in_leaf_ = 0;
  }
  if (next_leaf_ == leaves.size() || leaves[next_leaf_]->offset != leaf_offset || offset != in_leaf_) return;
  checksum_.add(std::span(kZeros).first(leaf_offset + offset - hashed_));  // padding between leaves
  checksum_.add(bytes);
  in_leaf_ += bytes.size();
  hashed_ = leaf_offset + offset + bytes.size();
}

PacketFile PacketFileWriter::finish() {
  std::uint64_t expected = 0;
  for (const auto* leaf : plan_.leaves()) expected += leaf->bytes;
  if (put_ != expected) {
    throw Error(
        fmt::format("{}: {} of {} bytes were written; an aggregator must put every member of every group exactly once",
                    final_name_.string(), put_, expected));
  }
  const auto size = plan_.total_bytes();
  if (ftruncate(file_.get(), static_cast<off_t>(size)) != 0) throw_errno("set the length of", temporary_);
  if (hashed_ < size) {  // leaves came out of order, or padding ends the file
    const MappedFile whole(temporary_);
    checksum_.add(whole.bytes().subspan(hashed_));
  }
  if (durability_ == Durability::Power && fsync(file_.get()) != 0) throw_errno("flush", temporary_);
  rename_into_place(temporary_, final_name_, durability_);
  finished_ = true;
  return {checksum_.value(), size};
}

}  // namespace hansa::fold
