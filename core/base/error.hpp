// How things fail: an unexpected failure is a hansa::Error (a sentence for a human: what, where, what to do); an expected
// outcome is a Result. Caught in four places only: main, the plugin guard, the RPC edge, tests.
#pragma once
#include <stdexcept>
#include <string>
#include <utility>
#include <variant>

namespace hansa {

class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// A value or the sentence that says why there is none.
template <class T>
class Result {
 public:
  Result(T made) : held_(std::in_place_index<0>, std::move(made)) {}
  static Result failure(std::string why) { return Result(std::in_place_index<1>, std::move(why)); }
  explicit operator bool() const { return held_.index() == 0; }
  T& value() & { return require(); }
  T&& value() && { return std::move(require()); }
  const T& value() const& { return const_cast<Result*>(this)->require(); }
  const std::string& error() const { return std::get<1>(held_); }

 private:
  template <std::size_t I, class V>
  Result(std::in_place_index_t<I> which, V&& made) : held_(which, std::forward<V>(made)) {}
  T& require() {
    if (held_.index() != 0) throw Error(std::get<1>(held_));
    return std::get<0>(held_);
  }
  std::variant<T, std::string> held_;
};

}  // namespace hansa
