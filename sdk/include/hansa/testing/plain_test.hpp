// A test program without a framework, for plugins that are built elsewhere: promises that throw a sentence, cases that main()
// runs one after the other.
//
//   int main() { return hansa::testing::run_cases({{"the sum is the naive one", the_sum}, …}); }
#pragma once
#include <exception>
#include <initializer_list>
#include <iostream>
#include <stdexcept>
#include <string>

namespace hansa::testing {

inline void promise(bool holds, const std::string& what) {
  if (!holds) throw std::runtime_error(what);
}

template <class Call>
void promise_throws(Call call, const std::string& what) {
  try {
    call();
  } catch (const std::exception&) {
    return;
  }
  throw std::runtime_error(what);
}

struct Case {
  const char* name;
  void (*body)();
};

inline int run_cases(std::initializer_list<Case> cases) {  // what main() returns
  int failed = 0;
  for (const auto& [name, body] : cases) {
    try {
      body();
      std::cout << "holds: " << name << '\n';
    } catch (const std::exception& e) {
      std::cout << "FAILED: " << name << ": " << e.what() << '\n';
      ++failed;
    }
  }
  return failed == 0 ? 0 : 1;
}

}  // namespace hansa::testing
