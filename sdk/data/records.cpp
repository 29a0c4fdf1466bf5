#include "data/records.hpp"

#include <algorithm>
#include <cstring>
#include <system_error>

#include <fmt/format.h>
#include <hf/code_points.hpp>

#include "base/error.hpp"

namespace hansa::data {

namespace {

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kLineEnds = "\r\n";
  const auto first = text.find_first_not_of(kLineEnds);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kLineEnds) - first + 1);
}
bool blank(std::string_view text) { return text.find_first_not_of(" \t\r\n") == std::string_view::npos; }

std::size_t line_end(std::string_view text, std::size_t begin) {
  const auto found = static_cast<const char*>(std::memchr(text.data() + begin, '\n', text.size() - begin));
  return found ? static_cast<std::size_t>(found - text.data()) : text.size();
}

// The end of the document that starts at `begin`, and where the next one starts.
struct Cut {
  std::size_t end, next;
};
Cut next_cut(std::string_view text, std::size_t begin, std::string_view separator) {
  if (separator.empty()) return {text.size(), text.size()};
  for (std::size_t line = begin; line < text.size();) {
    const auto end = line_end(text, line);
    auto content = text.substr(line, end - line);
    if (content.ends_with('\r')) content.remove_suffix(1);
    const std::size_t next = std::min(end + 1, text.size());
    if (content == separator) return {line, next};
    line = next;
  }
  return {text.size(), text.size()};
}

void give(std::string_view raw, std::size_t offset, const EachRecord& each) {
  if (!blank(raw)) each({trimmed(raw), offset, raw});
}

}  // namespace

std::vector<std::filesystem::path> files_of(const std::filesystem::path& silo, std::string_view extension) {
  std::error_code failed;
  const auto status = std::filesystem::status(silo, failed);
  if (!std::filesystem::exists(status))
    throw Error(fmt::format("silo {}: there is no such file or directory", silo.string()));
  if (!std::filesystem::is_directory(status)) return {silo};
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(silo))
    if (entry.is_regular_file() && entry.path().extension() == extension) files.push_back(entry.path());
  std::ranges::sort(files);
  if (files.empty()) throw Error(fmt::format("silo {}: the directory holds no {} file", silo.string(), extension));
  return files;
}

void cut_documents(std::string_view text, std::string_view separator, const EachRecord& each) {
  for (std::size_t begin = 0; begin < text.size();) {
    const auto cut = next_cut(text, begin, separator);
    give(text.substr(begin, cut.end - begin), begin, each);
    begin = cut.next;
  }
}

void cut_lines(std::string_view text, const EachRecord& each) {
  constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
  for (std::size_t begin = text.starts_with(kByteOrderMark) ? kByteOrderMark.size() : 0; begin < text.size();) {
    const auto end = line_end(text, begin);
    give(text.substr(begin, end - begin), begin, each);
    begin = end + 1;
  }
}

Flaw find_flaw(std::string_view text) {
  const auto nul = text.find('\0');
  const auto invalid = hf::first_invalid_utf8(text);
  if (invalid && (nul == std::string_view::npos || *invalid < nul))
    return {*invalid, fmt::format("byte 0x{:02x} is not valid UTF-8", static_cast<unsigned char>(text[*invalid]))};
  if (nul != std::string_view::npos) return {nul, "a NUL byte: this does not look like text"};
  return {};
}

std::string place_of(const std::filesystem::path& file, std::string_view text, std::size_t offset) {
  const auto line = 1 + std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(offset), '\n');
  return fmt::format("{}:{}", file.string(), line);
}

}  // namespace hansa::data
