#include "base/digest.hpp"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include <charconv>

#include <fmt/format.h>
#if defined(__x86_64__) && __has_include(<xxh_x86dispatch.h>)
#define XXH_STATIC_LINKING_ONLY  // XXH3_state_t by value
#include <xxh_x86dispatch.h>     // the widest registers of the machine that runs
#else
#define XXH_INLINE_ALL
#include <xxhash.h>
#endif

#include "base/error.hpp"
#include "base/file.hpp"

namespace hansa {
namespace {

std::string sha256_hex_of(std::span<const std::byte> bytes) {
  unsigned char out[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  if (EVP_Digest(bytes.data(), bytes.size(), out, &size, EVP_sha256(), nullptr) != 1) throw Error("SHA-256 failed");
  return to_hex({reinterpret_cast<const char*>(out), size});
}

}  // namespace

std::string Checksum::hex() const { return fmt::format("{:016x}{:016x}", high, low); }

Checksum Checksum::from_hex(std::string_view text) {
  Checksum sum;
  auto parse = [&](std::string_view part, std::uint64_t& into) {
    auto [end, code] = std::from_chars(part.data(), part.data() + part.size(), into, 16);
    return code == std::errc() && end == part.data() + part.size();
  };
  if (text.size() != 32 || !parse(text.substr(0, 16), sum.high) || !parse(text.substr(16), sum.low)) {
    throw Error(fmt::format("'{}' is not a checksum of 32 hexadecimal digits", text));
  }
  return sum;
}

std::uint64_t xxh3_64(std::span<const std::byte> bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }
std::uint64_t xxh3_64(std::string_view bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }
Checksum xxh3_128(std::span<const std::byte> bytes) {
  const auto sum = XXH3_128bits(bytes.data(), bytes.size());
  return {sum.high64, sum.low64};
}

struct RunningChecksum::State {
  XXH3_state_t xxh;
};
RunningChecksum::RunningChecksum() : state_(std::make_unique<State>()) { reset(); }
RunningChecksum::~RunningChecksum() = default;
RunningChecksum::RunningChecksum(RunningChecksum&&) noexcept = default;
RunningChecksum& RunningChecksum::operator=(RunningChecksum&&) noexcept = default;
void RunningChecksum::reset() { XXH3_128bits_reset(&state_->xxh); }
void RunningChecksum::add(std::span<const std::byte> bytes) {
  XXH3_128bits_update(&state_->xxh, bytes.data(), bytes.size());
}
Checksum RunningChecksum::value() const {
  const auto sum = XXH3_128bits_digest(&state_->xxh);
  return {sum.high64, sum.low64};
}

std::string sha256_hex(std::string_view bytes) { return sha256_hex_of(std::as_bytes(std::span(bytes))); }
std::string sha256_file_hex(const std::filesystem::path& path) { return sha256_hex_of(MappedFile(path).bytes()); }

std::string hmac_sha256(std::string_view key, std::string_view message) {
  unsigned char out[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  if (!HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()),
            reinterpret_cast<const unsigned char*>(message.data()), message.size(), out, &size)) {
    throw Error("HMAC failed");
  }
  return {reinterpret_cast<const char*>(out), size};
}

std::string to_hex(std::string_view bytes) {
  std::string text;
  text.reserve(2 * bytes.size());
  for (unsigned char byte : bytes) fmt::format_to(std::back_inserter(text), "{:02x}", byte);
  return text;
}

std::string random_bytes(std::size_t count) {
  std::string bytes(count, '\0');
  if (RAND_bytes(reinterpret_cast<unsigned char*>(bytes.data()), static_cast<int>(count)) != 1) {
    throw Error("the operating system gave no random bytes");
  }
  return bytes;
}

}  // namespace hansa
