// What a node process holds of the shared state, as files in its state directory: one whole version, the parts that moved since,
// the log. Gone with the process: after a restart everything is fetched anew, because nothing says that files are whole.
// One thread. Throws Error, DiskFull.
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <vector>

#include "fold/standing.hpp"
#include "wire/messages.hpp"

namespace hansa::node {

class Holdings {
 public:
  explicit Holdings(std::filesystem::path directory);  // made when missing; leftovers of an earlier process are removed
  static constexpr std::uint64_t kNothing = ~std::uint64_t{0};  // an epoch that no version has
  std::uint64_t epoch() const { return epoch_; }
  const fold::Standing& standing() const { return standing_; }

  using WriteAt = std::function<void(std::uint64_t offset, std::span<const std::byte>)>;
  // Takes one pull: `transfer` writes its bytes through what it is given and says whether all of them came. A transfer that
  // breaks leaves nothing that counts: until all pulls of a work are in, no epoch is held.
  bool take(const wire::PullInfo&, const std::function<bool(const WriteAt&)>& transfer);
  void forget();  // what is held, or what a broken transfer left of it: everything will be sent anew
  void reached(std::uint64_t epoch) { epoch_ = epoch; }

 private:
  void keep_part(const std::filesystem::path& incoming);
  std::filesystem::path directory_;
  std::uint64_t epoch_ = kNothing;
  fold::Standing standing_;
};

}  // namespace hansa::node
