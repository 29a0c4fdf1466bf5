#include "documents.hpp"

#include <algorithm>
#include <cstring>
#include <system_error>
#include <vector>

#include <fmt/format.h>
#include <hf/code_points.hpp>

#include "base/error.hpp"
#include "base/file.hpp"

namespace hansa::text {

namespace {

std::vector<std::filesystem::path> files_of(const std::filesystem::path& silo) {
  std::error_code failed;
  const auto status = std::filesystem::status(silo, failed);
  if (!std::filesystem::exists(status))
    throw Error(fmt::format("silo {}: there is no such file or directory", silo.string()));
  if (!std::filesystem::is_directory(status)) return {silo};
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(silo))
    if (entry.is_regular_file() && entry.path().extension() == ".txt") files.push_back(entry.path());
  std::ranges::sort(files);
  if (files.empty()) throw Error(fmt::format("silo {}: the directory holds no .txt file", silo.string()));
  return files;
}

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kLineEnds = "\r\n";
  const auto first = text.find_first_not_of(kLineEnds);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kLineEnds) - first + 1);
}
bool blank(std::string_view text) { return text.find_first_not_of(" \t\r\n") == std::string_view::npos; }

// The end of the document that starts at `begin`, and where the next one starts.
struct Cut {
  std::size_t end, next;
};
Cut next_cut(std::string_view text, std::size_t begin, std::string_view separator) {
  if (separator.empty()) return {text.size(), text.size()};
  for (std::size_t line = begin; line < text.size();) {
    const auto found = static_cast<const char*>(std::memchr(text.data() + line, '\n', text.size() - line));
    const std::size_t end = found ? static_cast<std::size_t>(found - text.data()) : text.size();
    auto content = text.substr(line, end - line);
    if (content.ends_with('\r')) content.remove_suffix(1);
    const std::size_t next = std::min(end + 1, text.size());
    if (content == separator) return {line, next};
    line = next;
  }
  return {text.size(), text.size()};
}

std::string place(const std::filesystem::path& file, std::string_view text, std::size_t offset) {
  const auto line = 1 + std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(offset), '\n');
  return fmt::format("{}:{}", file.string(), line);
}

void read_file_documents(const std::filesystem::path& file, const Cutting& cutting, Found& found,
                         const std::function<void(std::string_view)>& each) {
  const MappedFile mapped(file);
  const std::string_view text(reinterpret_cast<const char*>(mapped.bytes().data()), mapped.bytes().size());
  for (std::size_t begin = 0; begin < text.size();) {
    const auto cut = next_cut(text, begin, cutting.separator);
    const auto document = text.substr(begin, cut.end - begin);
    if (const auto flaw = find_flaw(document); !flaw.reason.empty()) {
      const auto where = fmt::format("{}: {}", place(file, text, begin + flaw.offset), flaw.reason);
      if (cutting.on_bad == OnBad::Error)
        throw Error(where + ". Mend the file, or set on_bad = \"skip\" to leave such documents out");
      if (found.skipped++ == 0) found.first_skipped = where;
    } else if (!blank(document)) {
      each(trimmed(document));
      ++found.documents;
    }
    begin = cut.next;
  }
}

}  // namespace

Flaw find_flaw(std::string_view text) {
  const auto nul = text.find('\0');
  const auto invalid = hf::first_invalid_utf8(text);
  if (invalid && (nul == std::string_view::npos || *invalid < nul))
    return {*invalid, fmt::format("byte 0x{:02x} is not valid UTF-8", static_cast<unsigned char>(text[*invalid]))};
  if (nul != std::string_view::npos) return {nul, "a NUL byte: this does not look like text"};
  return {};
}

Found read_documents(const std::filesystem::path& silo, const Cutting& cutting,
                     const std::function<void(std::string_view)>& each) {
  Found found;
  for (const auto& file : files_of(silo)) read_file_documents(file, cutting, found, each);
  if (found.documents == 0)
    throw Error(fmt::format("silo {}: no text in it{}", silo.string(),
                            found.skipped == 0 ? std::string()
                                               : fmt::format("; {} documents were skipped, the first at {}",
                                                             found.skipped, found.first_skipped)));
  return found;
}

}  // namespace hansa::text
