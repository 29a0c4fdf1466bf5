#include "plugin_host/call_watch.hpp"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>

#include "test.hpp"

using namespace hansa;
using Since = CallWatch::Limits::Since;

namespace {

const std::string kTrainer = "trainer sft 0.1.0", kCodec = "compressor int8 0.1.0";

bool comes_true(const std::function<bool()>& condition) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (std::chrono::steady_clock::now() < end) {
    if (condition()) return true;
    std::this_thread::yield();
  }
  return false;
}

struct Ended {
  int code = -1;
  std::string said;
};
// What a process ends with that does this: a watch ends the process that it is in.
Ended in_a_process(const std::function<void()>& body) {
  int ends[2];
  if (pipe(ends) != 0) throw std::runtime_error("no pipe");
  const auto child = fork();
  if (child == 0) {
    dup2(ends[1], STDERR_FILENO);
    close(ends[0]);
    body();
    _exit(0);
  }
  close(ends[1]);
  Ended ended;
  char buffer[512];
  for (ssize_t got; (got = read(ends[0], buffer, sizeof buffer)) > 0;)
    ended.said.append(buffer, static_cast<std::size_t>(got));
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  if (WIFEXITED(status)) ended.code = WEXITSTATUS(status);
  return ended;
}

}  // namespace

TEST_CASE("a call beyond its limit is late, under its own component's name only, until it returns") {
  CallWatch watch({.seconds = 0.05, .grace_seconds = 600});
  const CallPlace place{.doing = "train"};
  {
    const CallScope call(&watch, kTrainer, place);
    CHECK_FALSE(watch.late(kTrainer));
    CHECK(comes_true([&] { return watch.late(kTrainer); }));
    CHECK_FALSE(watch.late(kCodec));
  }
  CHECK_FALSE(watch.late(kTrainer));
}

TEST_CASE("where progress counts, a call that gets on is not late however long it takes") {
  const CallPlace place{.doing = "train"};
  const auto lasts = [&](Since since) {  // longer than the limit, with a sign of progress all the time
    CallWatch watch({.seconds = 0.5, .grace_seconds = 600, .since = since});
    const CallScope call(&watch, kTrainer, place);
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(1);
    bool late = false;
    while (std::chrono::steady_clock::now() < end) {
      watch.progressed();
      late = late || watch.late(kTrainer);
      std::this_thread::yield();
    }
    return late;
  };
  CHECK_FALSE(lasts(Since::Progress));
  CHECK(lasts(Since::Beginning));
}

TEST_CASE("who was asked to stop stays asked, although there was progress since") {
  CallWatch watch({.seconds = 0.05, .grace_seconds = 600, .since = Since::Progress});
  const CallPlace place{.doing = "train"};
  const CallScope call(&watch, kTrainer, place);
  REQUIRE(comes_true([&] { return watch.late(kTrainer); }));
  watch.progressed();
  CHECK(watch.late(kTrainer));
}

TEST_CASE("a call that outlasts its limit and the grace ends the process with a code of its own, and is named") {
  const auto ended = in_a_process([] {
    CallWatch watch({.seconds = 0.05, .grace_seconds = 0.05});
    const CallPlace place{.doing = "encode", .round = 3, .node = 0xab, .tensor = "q"};
    const CallScope call(&watch, kCodec, place);
    for (;;) pause();
  });
  CHECK(ended.code == kExitHung);
  CHECK_THAT(ended.said,
             Catch::Contains("compressor int8 0.1.0 in encode, round 3, node 00000000000000ab, tensor q has not "
                             "come back"));
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
TEST_CASE("a crash names the innermost call with round, node and tensor") {
  const auto ended = in_a_process([] {
    name_crashes();
    const CallPlace outer{.doing = "reduce"}, inner{.doing = "decode", .round = 12, .node = 0xab, .tensor = "q"};
    const CallScope one(nullptr, kTrainer, outer), two(nullptr, kCodec, inner);
    raise(SIGSEGV);
  });
  CHECK(ended.code == kExitCrashed);
  CHECK_THAT(ended.said, Catch::Contains("a bad memory access in compressor int8 0.1.0, decode, round 12, node "
                                         "00000000000000ab, tensor q"));
}
#endif
