// Checksums (XXH3, against accidents) and identities (SHA-256, against people).
#pragma once
#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace hansa {

struct Checksum {  // XXH3, 128 bit
  std::uint64_t high = 0, low = 0;
  bool operator==(const Checksum&) const = default;
  std::string hex() const;                     // 32 digits
  static Checksum from_hex(std::string_view);  // throws Error
};

std::uint64_t xxh3_64(std::span<const std::byte> bytes);
std::uint64_t xxh3_64(std::string_view bytes);
Checksum xxh3_128(std::span<const std::byte> bytes);

class RunningChecksum {  // over bytes that arrive in order
 public:
  RunningChecksum();
  ~RunningChecksum();
  RunningChecksum(RunningChecksum&&) noexcept;
  RunningChecksum& operator=(RunningChecksum&&) noexcept;
  void add(std::span<const std::byte> bytes);
  Checksum value() const;
  void reset();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

std::string sha256_hex(std::string_view bytes);
std::string sha256_file_hex(const std::filesystem::path&);  // throws Error when unreadable
// Keyed: HMAC-SHA256, for tokens that only the key's holder can make.
std::string hmac_sha256(std::string_view key, std::string_view message);  // 32 raw bytes
std::string to_hex(std::string_view bytes);
std::string random_bytes(std::size_t count);  // from the operating system's generator

}  // namespace hansa
