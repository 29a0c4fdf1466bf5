// Which plugin files may run: the operator's list of keys and digests, and the one way from a path to bytes that were
// vouched for. The registry asks before it loads anything; `hansa plugins verify` asks too. Any thread.
#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "plugin_host/sealed_file.hpp"
#include "plugin_host/signature.hpp"

namespace hansa {

inline constexpr std::string_view kDigestPrefix = "sha256:";

struct TrustPolicy {
  bool require_signed = false;  // without: everything is loaded as ever, and who vouched for it is only noted
  std::vector<PublicKey> keys;
  std::vector<std::string> digests;  // 64 hex digits each

  bool says_anything() const { return require_signed || !keys.empty() || !digests.empty(); }
  // "ed25519:…" or a file, which nobody but root and this user may write to, nor a directory above it. Why not, as the end of a
  // sentence about the key, or nothing: it was added.
  std::optional<std::string> add_key(const std::string& inline_or_file);
  std::optional<std::string> add_digest(const std::string& text);  // "sha256:<64 hex digits>"; why not, or nothing
};
std::optional<std::string> why_no_digest(std::string_view text);  // the end of a sentence about the text

struct Voucher {                 // why a file may run
  std::optional<PublicKey> key;  // that signed it; none: its digest is listed
  std::string text() const;      // "key 0123456789abcdef (release.pub)", "its listed digest"
};

// By the policy's lists alone. `signature`: what stands beside the file, if anything does. The failure is the end of a
// sentence about the file, with what to do.
Result<Voucher> vouch(const TrustPolicy&, const std::string& file_name, const std::string& sha256,
                      const std::optional<std::string>& signature);

struct TrustedFile {
  SealedFile file;  // the bytes that were looked at, and that are to be loaded
  std::optional<Voucher> voucher;
};
// Under require_signed only what somebody vouches for and nobody else can write to (guarded_path.hpp); else any file. A
// signature lies beside the real file, behind all links, and bears its name.
Result<TrustedFile> open_trusted(const std::filesystem::path& absolute, const TrustPolicy&);

}  // namespace hansa
