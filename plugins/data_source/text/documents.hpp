// A silo's documents: a .txt file, or a directory of them in name order, cut at separator lines. Throws Error with
// file:line. Pure functions over files; any thread.
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

namespace hansa::text {

enum class OnBad : std::uint8_t { Error, Skip };

struct Cutting {
  std::string separator = "%";  // a line equal to it ends a document; "": a file is one document
  OnBad on_bad = OnBad::Error;  // what to do with a document that is not UTF-8 or holds NUL bytes
};
struct Found {
  std::uint64_t documents = 0, skipped = 0;
  std::string first_skipped;  // file:line and the reason
};
// Calls `each` with every document that is not blank, without the line ends around it.
Found read_documents(const std::filesystem::path& silo, const Cutting&,
                     const std::function<void(std::string_view)>& each);

// Where a text stops being UTF-8 or holds a NUL byte, as a reason; empty when it is fine.
struct Flaw {
  std::size_t offset = 0;
  std::string reason;
};
Flaw find_flaw(std::string_view text);

}  // namespace hansa::text
