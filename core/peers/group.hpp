// The bond between the processes of one node. Made once at a process's start, used by its training thread, ended with it.
// Blocking. Whatever fails in here is OutOfStep: another process is gone or does something else, and nothing but a new start of
// all helps.
#pragma once
#include <filesystem>
#include <memory>
#include <string>

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <hansa/peers.hpp>

#include "base/error.hpp"
#include "peers/launch.hpp"

namespace hansa::peers {

class OutOfStep : public Error {
 public:
  using Error::Error;
};

class Transport {  // c10d's part, behind which its headers stay
 public:
  virtual ~Transport() = default;
  virtual void sum(at::Tensor&) = 0;
  // Of the first process's bytes; waits as long as it takes.
  virtual void broadcast(at::Tensor&) = 0;
};

class Group final : public Peers {
 public:
  // Meets the others; the first process waits for them where none of torchrun's does. Throws Error when they do not come.
  static std::unique_ptr<Group> meet(const Launch&, at::Device);
  Group(std::size_t rank, std::size_t size, std::unique_ptr<Transport> transport)
      : rank_(rank), size_(size), transport_(std::move(transport)) {}

  std::size_t rank() const override { return rank_; }
  std::size_t size() const override { return size_; }
  void sum(at::Tensor&) override;
  void agree(std::string_view failure) override;
  // Whether the last agree() made all processes give up: they are in step then, whatever was thrown since.
  bool gave_up() const { return gave_up_; }

  // The first process's become everybody's. Files are written under the same temporary name and renamed.
  void broadcast(std::string& bytes);
  void broadcast(at::Tensor&);
  void broadcast_file(const std::filesystem::path&);

 private:
  template <class Call>
  void calling(Call&& call);
  std::size_t rank_, size_;
  std::unique_ptr<Transport> transport_;
  bool gave_up_ = false;
};

}  // namespace hansa::peers
