// A silo's files cut into records: documents between separator lines, or lines. A file is mapped, never read as a whole, so it
// may be larger than memory. Throws Error with file:line. Pure functions over files; any thread.
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace hansa::data {

enum class OnBad : std::uint8_t { Error, Skip };

// The file itself, whatever its name, or a directory's files with this extension (".txt") in name order.
std::vector<std::filesystem::path> files_of(const std::filesystem::path& silo, std::string_view extension);

struct Record {
  std::string_view text;   // without the line ends around it
  std::size_t offset = 0;  // of `raw` in the file
  std::string_view raw;
};
using EachRecord = std::function<void(const Record&)>;
// Records that hold nothing but white space are passed over. `separator`: a line equal to it ends a document; empty: all of
// the text is one document.
void cut_documents(std::string_view text, std::string_view separator, const EachRecord&);
void cut_lines(std::string_view text, const EachRecord&);  // a byte order mark at the start is passed over

// Where a text stops being UTF-8 or holds a NUL byte, as a reason; empty when it is fine.
struct Flaw {
  std::size_t offset = 0;
  std::string reason;
};
Flaw find_flaw(std::string_view text);
std::string place_of(const std::filesystem::path& file, std::string_view text, std::size_t offset);  // "a.txt:3"

}  // namespace hansa::data
