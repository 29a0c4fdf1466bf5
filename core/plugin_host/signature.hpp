// Ed25519 keys, and the detached signature that stands beside a plugin file (hansa_x.so.sig). README.md says what exactly is
// signed. By OpenSSL, which makes the digests too and whose key files (PEM) every other tool reads. Any thread.
#pragma once
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "base/error.hpp"

struct evp_pkey_st;

namespace hansa {

inline constexpr std::string_view kSignatureSuffix = ".sig";
inline constexpr std::string_view kInlineKey = "ed25519:";

struct PublicKey {
  std::string bytes;  // 32
  std::string name;   // for people: the file that it came from; "" for an inline one

  std::string id() const;     // the first 16 hex digits of its SHA-256
  std::string text() const;   // "ed25519:<base64>": as it may stand in a pipeline
  std::string label() const;  // "key 0123456789abcdef (release.pub)"
  bool operator==(const PublicKey& other) const { return bytes == other.bytes; }
};
// From "ed25519:<base64>" or a PEM text. The failure is the end of a sentence about the text: "is a private key: …".
Result<PublicKey> parse_public_key(std::string_view text);
// From "ed25519:<base64>", or the file of that name.
Result<PublicKey> read_public_key(const std::string& inline_or_file);

class PrivateKey {  // never leaves this process but as a file that only its owner may read
 public:
  static PrivateKey generate();
  // The failure is the end of a sentence about the file: others may read it, it is encrypted, it is no such key.
  static Result<PrivateKey> read(const std::filesystem::path&);

  PublicKey public_half() const;
  std::string sign(std::string_view message) const;  // 64 bytes
  // `path`, for its owner only, and `path`.pub. Throws Error when one of the two is there already.
  void write_new(const std::filesystem::path&) const;

 private:
  struct Free {
    void operator()(evp_pkey_st*) const;
  };
  explicit PrivateKey(evp_pkey_st* key) : key_(key) {}
  std::unique_ptr<evp_pkey_st, Free> key_;
};

// The whole text of hansa_x.so.sig. Throws Error for a file name that such a text cannot hold.
std::string signature_of(const PrivateKey&, const std::string& file_name, const std::string& sha256);
// Whose signature of this very file it is. The failure is the end of a sentence about the file. Says nothing about whether that
// key is to be trusted.
Result<PublicKey> signer_of(std::string_view signature, const std::string& file_name, const std::string& sha256);

}  // namespace hansa
