// A promise that every component of a kind makes, and what finds out whether one keeps it. Everything here runs in a process of
// its own for each component (session.hpp), so a crash or a hang costs one check. One thread.
#pragma once
#include <functional>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "conformance/subject.hpp"

namespace hansa::conformance {

// What one try was made with. The same case gives the same input; a larger size more and larger tensors, more clients.
struct Case {
  std::uint64_t seed = 1;
  int size = 0;
  Round round = 1;
};
inline constexpr int kLargest = 4;  // sizes are 0 to this

// Thrown by a check: a promise does not hold. The sentence says what was seen.
class Broken : public std::runtime_error {
 public:
  explicit Broken(const std::string& what) : std::runtime_error(what) {}
  Broken(const std::string& what, std::uint64_t of_seed, std::string of_input)
      : std::runtime_error(what), seed(of_seed), input(std::move(of_input)) {}
  std::optional<std::uint64_t> seed{};
  std::string input{};  // what shows it, as small as it gets
};
// Thrown by a check: this component makes no such promise, or what it needs is not there. The sentence says why.
class NotConcerned : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};
void hold(bool holds, const std::string& what);  // throws Broken

struct Check {
  std::string id;       // "weights": what --only takes
  std::string promise;  // "A client's weight counts."
  std::function<void(const Subject&)> run;
};
// For the component's kind and the traits that it declares with these parameters, those of every kind first.
std::vector<Check> checks_for(const Subject&);

// Whatever `call` throws becomes a Broken with this seed and input, unless it says its own. The subject is told of both before,
// so that a crash has them too.
void with_input(const Subject&, std::uint64_t seed, const std::string& input, const std::function<void()>& call);

// Calls with cases from the smallest up, a few seeds each. A Broken gets the seed and the description of its case, which is then
// the smallest that shows it.
using Describe = std::function<std::string(const Case&)>;
using Call = std::function<void(const Case&)>;
void smallest_first(const Subject&, const Describe&, const Call&, int largest = kLargest);
// For what is dear: calls with the largest case alone, with the subject's seed. Only when that breaks are the smaller ones
// tried, from the smallest up, and the first that breaks is told.
void largest_then_smaller(const Subject&, const Describe&, const Call&, int largest = kLargest);

}  // namespace hansa::conformance
