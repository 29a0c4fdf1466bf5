// hf_tokens encode|decode DIRECTORY REPEAT < FROM > TO: many texts to ids or back, for the comparison with the reference and
// its benchmark. Binary, little-endian like this machine: each list is a count of 32 bits and then that many bytes of text, or
// ids of 32 bits. REPEAT times; the CPU seconds of the last time go to stderr. "special" is encode_with_special.
#include <cstdio>
#include <cstring>
#include <ctime>
#include <iostream>
#include <iterator>

#include "base/error.hpp"
#include "hf/tokenizer.hpp"

namespace {

using namespace hansa;
using Ids = std::vector<std::int64_t>;

class Lists {  // as bytes
 public:
  explicit Lists(std::string_view bytes) : left_(bytes) {}
  bool done() const { return left_.empty(); }
  std::string_view next(std::size_t unit) {
    std::uint32_t count = 0;
    std::memcpy(&count, take(sizeof count).data(), sizeof count);
    return take(count * unit);
  }

 private:
  std::string_view take(std::size_t size) {
    if (size > left_.size()) throw Error("the input ends within a list");
    const auto taken = left_.substr(0, size);
    left_.remove_prefix(size);
    return taken;
  }
  std::string_view left_;
};

void put(std::string& to, std::uint32_t value) { to.append(reinterpret_cast<const char*>(&value), sizeof value); }

void run(const hf::HfTokenizer& tokenizer, std::string_view verb, const std::string& input, std::string& output) {
  Lists lists(input);
  Ids ids;
  while (!lists.done()) {
    if (verb == "decode") {
      const auto bytes = lists.next(sizeof(std::uint32_t));
      ids.clear();
      for (std::size_t at = 0; at < bytes.size(); at += sizeof(std::uint32_t)) {
        std::uint32_t id = 0;
        std::memcpy(&id, bytes.data() + at, sizeof id);
        ids.push_back(id);
      }
      const auto text = tokenizer.decode(ids);
      put(output, static_cast<std::uint32_t>(text.size()));
      output += text;
    } else {
      const auto text = lists.next(1);
      const auto made = verb == "encode" ? tokenizer.encode(text) : tokenizer.encode_with_special(text);
      put(output, static_cast<std::uint32_t>(made.size()));
      for (const auto id : made) put(output, static_cast<std::uint32_t>(id));
    }
  }
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 4) {
    std::fputs("usage: hf_tokens encode|decode|special DIRECTORY REPEAT < FROM > TO\n", stderr);
    return 2;
  }
  try {
    const hf::HfTokenizer tokenizer(arguments[2]);
    const std::string input((std::istreambuf_iterator<char>(std::cin)), {});
    std::string output;
    for (int i = std::atoi(arguments[3]); i > 0; --i) {
      output.clear();
      const auto start = std::clock();
      run(tokenizer, arguments[1], input, output);
      if (i == 1) std::fprintf(stderr, "%.6f\n", static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC);
    }
    std::fwrite(output.data(), 1, output.size(), stdout);
    return 0;
  } catch (const std::exception& problem) {
    std::fprintf(stderr, "hf_tokens: %s\n", problem.what());
    return 1;
  }
}
