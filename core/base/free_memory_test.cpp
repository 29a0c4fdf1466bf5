#include "base/free_memory.hpp"

#include <unistd.h>

#include "base/file.hpp"
#include "test.hpp"

namespace hansa {
namespace {

struct Root {
  std::filesystem::path path = std::filesystem::temp_directory_path() / fmt::format("hansa_free_memory_{}", getpid());
  ~Root() { std::filesystem::remove_all(path); }
  void put(const std::string& name, const std::string& text) const {
    std::filesystem::create_directories((path / name).parent_path());
    write_file_atomically(path / name, text, Durability::Process);
  }
};

}  // namespace

TEST_CASE("without groups the machine's free memory counts") {
  const Root root;
  root.put("proc/meminfo", "MemTotal:  900 kB\nMemAvailable:     500 kB\n");
  const auto free = free_memory_under(root.path);
  CHECK(free.bytes == 500 * 1024);
  CHECK(free.limit == "the machine");
}

TEST_CASE("the group with the least room counts, also one further up, and pages of files are room") {
  const Root root;
  root.put("proc/meminfo", "MemAvailable: 500 kB\n");
  root.put("proc/self/cgroup", "0::/jobs/one\n");
  root.put("sys/fs/cgroup/jobs/one/memory.max", "max\n");
  root.put("sys/fs/cgroup/jobs/one/memory.current", "100\n");
  root.put("sys/fs/cgroup/jobs/memory.max", "5000\n");
  root.put("sys/fs/cgroup/jobs/memory.current", "4000\n");
  root.put("sys/fs/cgroup/jobs/memory.stat", "anon 3000\nactive_file 300\ninactive_file 700\n");
  const auto free = free_memory_under(root.path);
  CHECK(free.bytes == 2000);
  CHECK(free.limit.find("jobs/memory.max") != std::string::npos);
}

TEST_CASE("the older hierarchy of groups is read too") {
  const Root root;
  root.put("proc/meminfo", "MemAvailable: 500 kB\n");
  root.put("proc/self/cgroup", "3:cpu:/a\n7:memory:/a\n");
  root.put("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "9000\n");
  root.put("sys/fs/cgroup/memory/a/memory.usage_in_bytes", "8999\n");
  CHECK(free_memory_under(root.path).bytes == 1);
}

TEST_CASE("this process has some room, and somebody sets it") {
  const auto free = free_memory();
  CHECK(free.bytes > 0);
  CHECK_FALSE(free.limit.empty());
}

}  // namespace hansa
