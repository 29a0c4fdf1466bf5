#include "hf/charsmap.hpp"

#include <openssl/evp.h>

#include <cstring>

#include <fmt/format.h>

#include "base/error.hpp"
#include "hf/code_points.hpp"
#include "hf/grapheme_clusters.hpp"

namespace hansa::hf {
namespace {

constexpr std::size_t kLongestCluster = 5;

[[noreturn]] void damaged(std::string_view why) {
  throw Error(fmt::format("tokenizer.json: normalizer: precompiled_charsmap is damaged: {}", why));
}

std::string decoded(std::string_view base64) {
  if (base64.size() % 4 != 0) damaged("it is no base64");
  std::string bytes(base64.size() / 4 * 3, '\0');
  const int size =
      EVP_DecodeBlock(reinterpret_cast<unsigned char*>(bytes.data()),
                      reinterpret_cast<const unsigned char*>(base64.data()), static_cast<int>(base64.size()));
  if (size < 0) damaged("it is no base64");
  const auto padding = base64.ends_with("==") ? 2 : base64.ends_with("=") ? 1 : 0;
  bytes.resize(static_cast<std::size_t>(size - padding));
  return bytes;
}

// A unit of the double array (darts-clone): label 0-7 and 31, leaf 8, wide offset 9, offset 10-30.
bool has_leaf(std::uint32_t unit) { return (unit >> 8 & 1) != 0; }
std::uint32_t label(std::uint32_t unit) { return unit & (1u << 31 | 0xFF); }
std::uint32_t offset(std::uint32_t unit) { return unit >> 10 << ((unit & 1u << 9) >> 6); }
std::uint32_t value(std::uint32_t unit) { return unit & ((1u << 31) - 1); }

}  // namespace

Charsmap::Charsmap(std::string_view base64) {
  const auto bytes = decoded(base64);
  std::uint32_t size = 0;
  if (bytes.size() < sizeof size) damaged("it is too short");
  std::memcpy(&size, bytes.data(), sizeof size);  // little-endian, like this machine
  if (size % sizeof(std::uint32_t) != 0 || size == 0 || size > bytes.size() - sizeof size)
    damaged("its table is longer than the data");
  units_.resize(size / sizeof(std::uint32_t));
  std::memcpy(units_.data(), bytes.data() + sizeof size, size);
  replacements_ = bytes.substr(sizeof size + size);
  if (const auto at = first_invalid_utf8(replacements_)) damaged(fmt::format("no UTF-8 at byte {}", *at));
}

std::optional<std::string_view> Charsmap::replacement(std::string_view characters) const {
  std::size_t node = offset(unit(0));
  for (const char c : characters) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte == 0) return std::nullopt;
    node ^= byte;
    const auto here = unit(node);
    if (label(here) != byte) return std::nullopt;
    node ^= offset(here);
    if (!has_leaf(here)) continue;
    const auto begin = value(unit(node));
    if (begin > replacements_.size()) return std::string_view();
    const auto rest = std::string_view(replacements_).substr(begin);
    return rest.substr(0, rest.find('\0'));
  }
  return std::nullopt;
}

std::string Charsmap::apply(std::string_view text) const {
  std::string out;
  out.reserve(text.size());
  const auto put = [&](std::string_view characters) { out += replacement(characters).value_or(characters); };
  for (std::size_t at = 0; at < text.size();) {
    // Between printable ASCII characters there is always a border.
    const auto is_plain = [&](std::size_t i) { return text[i] >= 0x20 && text[i] < 0x7F; };
    const auto end = is_plain(at) && (at + 1 == text.size() || is_plain(at + 1)) ? at + 1 : cluster_end(text, at);
    const auto cluster = text.substr(at, end - at);
    at = end;
    if (cluster.size() <= kLongestCluster) {
      if (const auto whole = replacement(cluster)) {
        out += *whole;
        continue;
      }
    }
    for (std::size_t i = 0; i < cluster.size();) {
      const auto begin = i;
      next_code_point(cluster, i);
      put(cluster.substr(begin, i - begin));
    }
  }
  return out;
}

}  // namespace hansa::hf
