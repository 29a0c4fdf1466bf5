// hf_tokens --model DIR [--decode]: a JSON text per input line to a JSON list of ids per output line, or back. For tests that
// compare the tokenizer with the reference.
#include <cstdio>
#include <iostream>
#include <string>

#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "hf/tokenizer.hpp"

namespace {

int run(const std::string& directory, const std::string& direction) {
  const hansa::hf::HfTokenizer tokenizer(directory);
  for (std::string line; std::getline(std::cin, line);) {
    const auto input = nlohmann::json::parse(line);
    if (direction == "--decode") {
      std::cout << nlohmann::json(tokenizer.decode(input.get<std::vector<std::int64_t>>())).dump() << '\n';
    } else {
      std::cout << nlohmann::json(tokenizer.encode(input.get<std::string>())).dump() << '\n';
    }
  }
  return 0;
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 3 || count > 4 || std::string(arguments[1]) != "--model") {
    std::fputs("usage: hf_tokens --model DIR [--decode]\n", stderr);
    return 2;
  }
  std::ios::sync_with_stdio(false);
  try {
    return run(arguments[2], count == 4 ? arguments[3] : "");
  } catch (const std::exception& problem) {
    std::fprintf(stderr, "hf_tokens: %s\n", problem.what());
    return 1;
  }
}
