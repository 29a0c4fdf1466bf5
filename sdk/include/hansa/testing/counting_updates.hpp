// A view of updates that counts what a rule holds of them at once: for tests of a stated workspace. Every tensor given is a
// copy with memory of its own, counted until its last handle goes. No test framework; one thread.
#pragma once
#include <algorithm>
#include <cstring>
#include <memory>

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <hansa/updates.hpp>

namespace hansa::testing {

class CountingUpdates : public Decorated {
 public:
  using Decorated::Decorated;
  at::Tensor delta(std::size_t client, std::size_t member) const override {
    return counted(inner_.delta(client, member));
  }
  at::Tensor value(std::size_t client, std::size_t member) const override {
    return counted(inner_.value(client, member));
  }
  at::Tensor slice(std::size_t client, std::size_t member, std::int64_t first, std::int64_t count) const override {
    return counted(inner_.slice(client, member, first, count));
  }
  std::uint64_t most_bytes() const { return state_->most; }  // alive at once
  std::uint64_t bytes_read() const { return state_->read; }  // given in all
  std::uint64_t alive() const { return state_->alive; }

 private:
  struct State {
    std::uint64_t alive = 0, most = 0, read = 0;
  };
  at::Tensor counted(const at::Tensor& from) const {
    const auto bytes = static_cast<std::uint64_t>(from.nbytes());
    state_->alive += bytes;
    state_->read += bytes;
    state_->most = std::max(state_->most, state_->alive);
    auto copy = std::make_shared<at::Tensor>(from.clone(at::MemoryFormat::Contiguous));
    return at::from_blob(
        copy->mutable_data_ptr(), copy->sizes(),
        [copy, state = state_, bytes](void*) mutable {
          state->alive -= bytes;
          copy.reset();
        },
        copy->options());
  }
  std::shared_ptr<State> state_ = std::make_shared<State>();  // shared with the tensors that are still alive
};

}  // namespace hansa::testing
