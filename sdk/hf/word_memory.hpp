// Pieces of text seen before and their ids: most words of a text come again. Bounded: when it is full it starts anew. One
// thread; Pool lends one to each call.
#pragma once
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "hf/token_model.hpp"

namespace hansa::hf {

class WordMemory {
 public:
  // Appends the ids of a known piece.
  bool append(std::string_view piece, std::vector<TokenId>& ids) const {
    const auto at = places_.find(piece);
    if (at == places_.end()) return false;
    const auto from = ids_.begin() + at->second.first;
    ids.insert(ids.end(), from, from + at->second.second);
    return true;
  }
  void remember(std::string_view piece, std::vector<TokenId>::const_iterator first,
                std::vector<TokenId>::const_iterator last) {
    if (piece.size() > kLongest) return;
    if (places_.size() >= kMost) {
      places_.clear();
      ids_.clear();
    }
    places_.emplace(piece,
                    std::pair(static_cast<std::uint32_t>(ids_.size()), static_cast<std::uint32_t>(last - first)));
    ids_.insert(ids_.end(), first, last);
  }

 private:
  static constexpr std::size_t kMost = 1 << 16, kLongest = 256;
  TextMap<std::pair<std::uint32_t, std::uint32_t>> places_;
  std::vector<TokenId> ids_;
};

template <class Space>
class Pool {
 public:
  std::unique_ptr<Space> take() {
    const std::lock_guard lock(mutex_);
    if (free_.empty()) return std::make_unique<Space>();
    auto space = std::move(free_.back());
    free_.pop_back();
    return space;
  }
  void give_back(std::unique_ptr<Space> space) {
    const std::lock_guard lock(mutex_);
    free_.push_back(std::move(space));
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<Space>> free_;
};

}  // namespace hansa::hf
