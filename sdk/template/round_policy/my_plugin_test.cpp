#include "my_plugin.hpp"

#include <hansa/testing/plain_test.hpp>

using example::MyPlugin;
using hansa::Next;
using hansa::testing::promise;

namespace {

Next decide(double share, std::size_t accepted, std::size_t running) {
  return MyPlugin({share}).decide({.cohort = 10, .accepted = accepted, .running = running});
}

void it_waits_closes_and_aborts() {
  promise(decide(0.8, 7, 3) == Next::Wait, "did not wait");
  promise(decide(0.8, 8, 2) == Next::Close, "did not close");
  promise(decide(0.8, 5, 2) == Next::Abort, "did not abort");
  promise(decide(1, 9, 1) == Next::Wait, "did not wait for the last");
  promise(decide(1, 9, 0) == Next::Abort, "closed without everyone");
  promise(decide(0, 0, 10) == Next::Wait, "closed before anyone came");
}

}  // namespace

int main() { return hansa::testing::run_cases({{"it waits, closes and aborts", it_waits_closes_and_aborts}}); }
