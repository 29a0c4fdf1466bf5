// Real groups, by Gloo over TCP; threads stand for processes.
#include "peers/group.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <functional>
#include <thread>

#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/TensorOperators.h>

#include "base/file.hpp"
#include "test.hpp"

using namespace hansa;
using namespace hansa::peers;
using Catch::Matchers::Contains;

namespace {

std::uint16_t free_port() {
  const FileDescriptor listener(socket(AF_INET, SOCK_STREAM, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  REQUIRE(bind(listener.get(), reinterpret_cast<sockaddr*>(&address), length) == 0);
  REQUIRE(getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &length) == 0);
  return ntohs(address.sin_port);
}

// What each of so many processes makes of `work`.
template <class T>
std::vector<T> in_processes(std::size_t size, const std::function<T(std::unique_ptr<Group>)>& work) {
  const auto port = free_port();
  std::vector<T> all(size);
  {
    std::vector<std::jthread> threads;
    for (std::size_t rank = 0; rank < size; ++rank)
      threads.emplace_back([&, rank] {
        all[rank] = work(Group::meet({.rank = rank, .size = size, .address = "127.0.0.1", .port = port}, at::kCPU));
      });
  }
  return all;
}

std::string failure_of(const std::function<void()>& work) {
  try {
    work();
    return {};
  } catch (const OutOfStep& lost) {
    return std::string("out of step: ") + lost.what();
  } catch (const std::exception& failed) {
    return failed.what();
  }
}

}  // namespace

TEST_CASE("a sum is the same in all processes, whatever its type") {
  for (const std::size_t size : {2u, 3u}) {
    const auto all = in_processes<std::vector<at::Tensor>>(size, [](std::unique_ptr<Group> group) {
      const auto own = static_cast<double>(group->rank() + 1);
      std::vector<at::Tensor> sums{at::full({7}, own, at::kDouble), at::arange(100001, at::kFloat) * (own / 3),
                                   at::full({2, 3}, own, at::kByte)};
      for (auto& sum : sums) group->sum(sum);
      return sums;
    });
    const double total = size == 2 ? 3 : 6;
    for (const auto& sums : all) {
      CHECK(at::equal(sums[0], at::full({7}, total, at::kDouble)));
      CHECK(at::equal(sums[1], all[0][1]));
      CHECK(sums[1][99999].item<double>() == Approx(99999 * total / 3));
      CHECK(at::equal(sums[2], at::full({2, 3}, total, at::kByte)));
    }
  }
}

TEST_CASE("where one process cannot go on, all hear why and are in step again") {
  const auto all = in_processes<std::vector<std::string>>(3, [](std::unique_ptr<Group> group) {
    std::vector<std::string> heard{failure_of([&] { group->agree(""); })};
    heard.push_back(group->gave_up() ? "gave up" : "");
    heard.push_back(failure_of([&] { group->agree(group->rank() == 1 ? "the disk is full" : ""); }));
    heard.push_back(group->gave_up() ? "gave up" : "");
    heard.push_back(failure_of([&] { group->agree(""); }));
    return heard;
  });
  for (std::size_t rank = 0; rank < all.size(); ++rank) {
    const auto said = rank == 1 ? "the disk is full" : "process 1 of this node failed: the disk is full";
    CHECK(all[rank] == std::vector<std::string>{"", "", said, "gave up", ""});
  }
}

TEST_CASE("texts and files are the first process's, also where they take several pieces") {
  const auto folder = std::filesystem::temp_directory_path() / ("hansa_group_" + std::to_string(getpid()));
  std::filesystem::create_directories(folder);
  std::string large(std::size_t{35} << 20, 'x');
  for (std::size_t i = 0; i < large.size(); i += 997) large[i] = static_cast<char>('a' + i % 26);
  write_file_atomically(folder / "0", large, Durability::Process);
  const auto all = in_processes<std::vector<std::string>>(2, [&](std::unique_ptr<Group> group) {
    std::string text = group->rank() == 0 ? "train" : "", none = group->rank() == 0 ? "" : "left over";
    group->broadcast(text);
    group->broadcast(none);
    group->broadcast_file(folder / std::to_string(group->rank()));
    return std::vector<std::string>{text, none};
  });
  for (const auto& texts : all) CHECK(texts == std::vector<std::string>{"train", ""});
  CHECK(read_file(folder / "1") == large);
  std::filesystem::remove_all(folder);
}

TEST_CASE("when a process goes, the others are told at once that they are out of step") {
  const auto all = in_processes<std::string>(2, [](std::unique_ptr<Group> group) -> std::string {
    if (group->rank() == 1) return {};  // gone
    return failure_of([&] { group->agree(""); });
  });
  CHECK_THAT(all[0], Contains("out of step: process 0 of 2 lost the others"));
}
