#include "plugin_host/signature.hpp"

#include <fcntl.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include <fmt/format.h>

#include "base/digest.hpp"
#include "base/file.hpp"

namespace hansa {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kKeyBytes = 32, kSignatureBytes = 64;
constexpr std::uintmax_t kLargestKeyFile = 16384;

struct FreeKey {
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
};
struct FreeBio {
  void operator()(BIO* bio) const { BIO_free_all(bio); }
};
struct FreeContext {
  void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
};
using Key = std::unique_ptr<EVP_PKEY, FreeKey>;
using Bio = std::unique_ptr<BIO, FreeBio>;
using Context = std::unique_ptr<EVP_MD_CTX, FreeContext>;

const unsigned char* raw(std::string_view bytes) { return reinterpret_cast<const unsigned char*>(bytes.data()); }
unsigned char* raw(std::string& bytes) { return reinterpret_cast<unsigned char*>(bytes.data()); }

std::string base64(std::string_view bytes) {
  std::string text((bytes.size() + 2) / 3 * 4 + 1, '\0');  // OpenSSL ends it with a zero
  text.resize(static_cast<std::size_t>(EVP_EncodeBlock(raw(text), raw(bytes), static_cast<int>(bytes.size()))));
  return text;
}

// Exactly `size` bytes in the one way of writing them; "" else.
std::string from_base64(std::string_view text, std::size_t size) {
  if (text.size() != (size + 2) / 3 * 4) return {};
  std::string bytes(text.size() / 4 * 3, '\0');
  if (EVP_DecodeBlock(raw(bytes), raw(text), static_cast<int>(text.size())) < 0) return {};
  bytes.resize(size);
  return base64(bytes) == text ? bytes : std::string();
}

std::string public_bytes(const EVP_PKEY* key) {
  std::string bytes(kKeyBytes, '\0');
  std::size_t size = bytes.size();
  if (EVP_PKEY_get_raw_public_key(key, raw(bytes), &size) != 1 || size != kKeyBytes)
    throw Error("OpenSSL does not give the public half of a key");
  return bytes;
}

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kBlank = " \t\r\n";
  text.remove_prefix(std::min(text.find_first_not_of(kBlank), text.size()));
  return text.substr(0, text.find_last_not_of(kBlank) + 1);
}

int no_passphrase(char*, int, int, void*) { return -1; }  // OpenSSL would ask at the terminal

bool verifies(const PublicKey& key, std::string_view message, std::string_view signature) {
  const Key made(EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, nullptr, raw(key.bytes), key.bytes.size()));
  const Context context(EVP_MD_CTX_new());
  return made && context && EVP_DigestVerifyInit(context.get(), nullptr, nullptr, nullptr, made.get()) == 1 &&
         EVP_DigestVerify(context.get(), raw(signature), signature.size(), raw(message), message.size()) == 1;
}

// What is signed, word for word: the signature's file up to its last line. The first line keeps it apart from everything else
// that may ever be signed with the same key.
std::string message_of(const std::string& file_name, const std::string& sha256, const PublicKey& key) {
  return fmt::format("hansa-plugin-signature 1\nplugin {}\nsha256 {}\nkey {}\nkey-id {}\n", file_name, sha256,
                     key.text(), key.id());
}
std::string last_line(std::string_view signature) { return fmt::format("signature {}\n", base64(signature)); }

// The rest of the line that begins with `word` and a blank; "" when there is none.
std::string field(std::string_view text, std::string_view word) {
  const auto start = text.find(fmt::format("\n{} ", word));
  if (start == std::string_view::npos) return {};
  const auto from = start + word.size() + 2;
  return std::string(text.substr(from, text.find('\n', from) - from));
}

void write_key_file(const fs::path& path, std::string_view text, unsigned mode) {
  const FileDescriptor file(open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode));
  if (!file && errno == EEXIST)
    throw Error(fmt::format("{} is there already: a key that is lost cannot be made again; choose another name",
                            path.string()));
  if (!file) throw_errno("make", path);
  if (fchmod(file.get(), mode) != 0) throw_errno("set the rights of", path);  // whatever the umask
  write_all(file.get(), std::as_bytes(std::span(text)), path);
  if (fsync(file.get()) != 0) throw_errno("flush", path);
}

template <class Write>
std::string pem_of(Write write) {
  const Bio bio(BIO_new(BIO_s_secmem()));  // wiped when it is freed
  if (!bio || write(bio.get()) != 1) throw Error("OpenSSL cannot write a key");
  char* data = nullptr;
  const auto size = BIO_get_mem_data(bio.get(), &data);
  return {data, static_cast<std::size_t>(size)};
}

}  // namespace

std::string PublicKey::id() const { return sha256_hex(bytes).substr(0, 16); }
std::string PublicKey::text() const { return std::string(kInlineKey) + base64(bytes); }
std::string PublicKey::label() const {
  return name.empty() ? fmt::format("key {}", id()) : fmt::format("key {} ({})", id(), name);
}

Result<PublicKey> parse_public_key(std::string_view text) {
  using Parsed = Result<PublicKey>;
  if (text.find("PRIVATE KEY-----") != std::string_view::npos)
    return Parsed::failure(
        "is a private key: it stays with whoever signs; the public half, which belongs here, lies beside it "
        "(NAME.pub)");
  text = trimmed(text);
  if (text.starts_with(kInlineKey)) {
    auto bytes = from_base64(text.substr(kInlineKey.size()), kKeyBytes);
    if (bytes.empty()) return Parsed::failure("is no key: after ed25519: stand 44 characters of base64, 32 bytes");
    return PublicKey{std::move(bytes), {}};
  }
  const Bio bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
  const Key key(bio ? PEM_read_bio_PUBKEY(bio.get(), nullptr, no_passphrase, nullptr) : nullptr);
  ERR_clear_error();  // what was wrong is said here, and must not surface elsewhere
  if (!key)
    return Parsed::failure(
        "is no public key: neither PEM (-----BEGIN PUBLIC KEY-----) nor ed25519:…; `hansa plugins keygen` makes a "
        "pair");
  if (EVP_PKEY_get_base_id(key.get()) != EVP_PKEY_ED25519)
    return Parsed::failure("is a public key of another kind than Ed25519; `hansa plugins keygen` makes a pair");
  return PublicKey{public_bytes(key.get()), {}};
}

Result<PublicKey> read_public_key(const std::string& inline_or_file) {
  if (inline_or_file.starts_with(kInlineKey)) return parse_public_key(inline_or_file);
  const fs::path path = inline_or_file;
  std::error_code failed;
  if (fs::is_regular_file(path, failed) && fs::file_size(path, failed) > kLargestKeyFile)
    return Result<PublicKey>::failure("is no public key: it is larger than 16 KiB");
  if (!fs::exists(path, failed)) return Result<PublicKey>::failure("does not exist");
  if (!fs::is_regular_file(path, failed)) return Result<PublicKey>::failure("is not a regular file");
  auto key = parse_public_key(read_file(path));
  if (key) key.value().name = path.filename().string();
  return key;
}

void PrivateKey::Free::operator()(evp_pkey_st* key) const { EVP_PKEY_free(key); }

PrivateKey PrivateKey::generate() {
  auto* key = EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519");
  if (!key) throw Error("OpenSSL cannot make an Ed25519 key");
  return PrivateKey(key);
}

Result<PrivateKey> PrivateKey::read(const fs::path& path) {
  using Read = Result<PrivateKey>;
  const auto file = open_file(path, O_RDONLY | O_NONBLOCK);
  struct stat status {};
  if (fstat(file.get(), &status) != 0) throw_errno("inspect", path);
  if (!S_ISREG(status.st_mode)) return Read::failure("is not a regular file");
  const Bio bio(BIO_new_fd(file.get(), BIO_NOCLOSE));
  Key key(bio ? PEM_read_bio_PrivateKey(bio.get(), nullptr, no_passphrase, nullptr) : nullptr);
  ERR_clear_error();
  if (!key) {
    const auto text = status.st_size <= static_cast<off_t>(kLargestKeyFile) ? read_file(path) : std::string();
    if (text.find("ENCRYPTED") != std::string::npos)
      return Read::failure(
          "is encrypted; sign with a decrypted copy that only you can read: openssl pkey -in KEY -out COPY");
    if (parse_public_key(text)) return Read::failure("is a public key; signing takes the private one beside it");
    return Read::failure("is no private key (PEM); `hansa plugins keygen` makes one");
  }
  if (EVP_PKEY_get_base_id(key.get()) != EVP_PKEY_ED25519)
    return Read::failure("is a private key of another kind than Ed25519; `hansa plugins keygen` makes one");
  if (status.st_mode & 077)
    return Read::failure(
        fmt::format("may be read or written by others (mode {:04o}): chmod 600 it, and think about a new one",
                    status.st_mode & 07777));
  return PrivateKey(key.release());
}

PublicKey PrivateKey::public_half() const { return {public_bytes(key_.get()), {}}; }

std::string PrivateKey::sign(std::string_view message) const {
  const Context context(EVP_MD_CTX_new());
  std::string signature(kSignatureBytes, '\0');
  std::size_t size = signature.size();
  if (!context || EVP_DigestSignInit(context.get(), nullptr, nullptr, nullptr, key_.get()) != 1 ||
      EVP_DigestSign(context.get(), raw(signature), &size, raw(message), message.size()) != 1 ||
      size != signature.size())
    throw Error("OpenSSL cannot sign");
  return signature;
}

void PrivateKey::write_new(const fs::path& path) const {
  auto beside = path;
  beside += ".pub";
  if (fs::exists(fs::symlink_status(path)))
    throw Error(fmt::format("{} is there already; choose another name", path.string()));
  const auto public_pem = pem_of([&](BIO* bio) { return PEM_write_bio_PUBKEY(bio, key_.get()); });
  auto private_pem = pem_of(
      [&](BIO* bio) { return PEM_write_bio_PKCS8PrivateKey(bio, key_.get(), nullptr, nullptr, 0, nullptr, nullptr); });
  write_key_file(beside, public_pem, 0644);
  try {
    write_key_file(path, private_pem, 0600);
  } catch (...) {
    unlink(beside.c_str());
    OPENSSL_cleanse(private_pem.data(), private_pem.size());
    throw;
  }
  OPENSSL_cleanse(private_pem.data(), private_pem.size());
}

std::string signature_of(const PrivateKey& key, const std::string& file_name, const std::string& sha256) {
  const bool plain = !file_name.empty() && std::all_of(file_name.begin(), file_name.end(), [](char c) {
    return static_cast<unsigned char>(c) > ' ' && c != '/' && c != 0x7f;
  });
  if (!plain) throw Error(fmt::format("'{}' cannot be signed: blanks and control characters in its name", file_name));
  const auto message = message_of(file_name, sha256, key.public_half());
  return message + last_line(key.sign(message));
}

Result<PublicKey> signer_of(std::string_view text, const std::string& file_name, const std::string& sha256) {
  using Signer = Result<PublicKey>;
  const auto beside = file_name + std::string(kSignatureSuffix);
  if (!text.starts_with("hansa-plugin-signature "))
    return Signer::failure(fmt::format("has a signature file that is none ({}); sign it again", beside));
  if (!text.starts_with("hansa-plugin-signature 1\n"))
    return Signer::failure(fmt::format(
        "has a signature of a version that this host does not know ({}); sign it with this version", beside));
  const auto key = parse_public_key(field(text, "key"));
  const auto signature = from_base64(field(text, "signature"), kSignatureBytes);
  const auto name = field(text, "plugin"), digest = field(text, "sha256");
  // One way to write it: what differs in any byte from what signing writes is none.
  if (!key || signature.empty() || text != message_of(name, digest, key.value()) + last_line(signature))
    return Signer::failure(fmt::format("has a damaged or truncated signature ({}); sign it again", beside));
  if (!verifies(key.value(), message_of(name, digest, key.value()), signature))
    return Signer::failure(fmt::format("has a signature that key {} did not make ({}): one of the two was changed",
                                       key.value().id(), beside));
  if (digest != sha256)
    return Signer::failure(
        fmt::format("was changed after it was signed, or has the signature of another file: {} is for "
                    "sha256:{}, the file is sha256:{}",
                    beside, digest, sha256));
  if (name != file_name)
    return Signer::failure(fmt::format(
        "was signed as {}, and a plugin keeps the name that it was signed with; rename it back, or sign it again",
        name));
  return key;
}

}  // namespace hansa
