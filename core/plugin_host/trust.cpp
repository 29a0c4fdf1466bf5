#include "plugin_host/trust.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include <fmt/format.h>

#include "plugin_host/guarded_path.hpp"

namespace hansa {
namespace {

namespace fs = std::filesystem;

// At most what a signature can be and one byte more. Nothing when there is none.
std::optional<std::string> signature_beside(int directory, const fs::path& file) {
  const auto name = file.filename().string() + std::string(kSignatureSuffix);
  const FileDescriptor fd(openat(directory, name.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd && errno == ENOENT) return std::nullopt;
  struct stat status {};
  if (!fd || fstat(fd.get(), &status) != 0 || !S_ISREG(status.st_mode)) return std::string();  // a damaged one
  std::string text(4096, '\0');
  std::size_t size = 0;
  while (size < text.size()) {
    const auto got = ::read(fd.get(), text.data() + size, text.size() - size);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    size += static_cast<std::size_t>(got);
  }
  text.resize(size);
  return text;
}

GuardedFile open_anywhere(const fs::path& path) {
  const auto real = fs::canonical(path);
  return {open_file(real, O_RDONLY | O_NONBLOCK), open_file(real.parent_path(), O_PATH | O_DIRECTORY), real};
}

}  // namespace

std::optional<std::string> why_no_digest(std::string_view text) {
  const auto hex = text.substr(std::min(text.size(), kDigestPrefix.size()));
  const bool fine = text.starts_with(kDigestPrefix) && hex.size() == 64 &&
                    hex.find_first_not_of("0123456789abcdef") == std::string_view::npos;
  if (fine) return std::nullopt;
  return "is no digest: write sha256: and 64 of 0-9a-f, as `hansa plugins verify` prints them";
}

std::optional<std::string> TrustPolicy::add_digest(const std::string& text) {
  if (auto why = why_no_digest(text)) return why;
  digests.push_back(text.substr(kDigestPrefix.size()));
  return std::nullopt;
}

std::optional<std::string> TrustPolicy::add_key(const std::string& inline_or_file) {
  if (!inline_or_file.starts_with(kInlineKey)) {
    const auto guarded = open_guarded(fs::absolute(inline_or_file));
    if (!guarded) return guarded.error();
  }
  auto key = read_public_key(inline_or_file);
  if (!key) return key.error();
  keys.push_back(std::move(key).value());
  return std::nullopt;
}

std::string Voucher::text() const { return key ? key->label() : "its listed digest"; }

Result<Voucher> vouch(const TrustPolicy& policy, const std::string& file_name, const std::string& sha256,
                      const std::optional<std::string>& signature) {
  using Vouched = Result<Voucher>;
  if (std::find(policy.digests.begin(), policy.digests.end(), sha256) != policy.digests.end()) return Voucher{};
  const auto what_to_do = fmt::format("or list its digest if you trust it all the same: {}{}", kDigestPrefix, sha256);
  if (!signature)
    return Vouched::failure(
        fmt::format("is not signed (there is no {}{} beside it): sign it with `hansa plugins sign`, {}", file_name,
                    kSignatureSuffix, what_to_do));
  const auto signer = signer_of(*signature, file_name, sha256);
  if (!signer) return Vouched::failure(signer.error());
  const auto listed = std::find(policy.keys.begin(), policy.keys.end(), signer.value());
  if (listed == policy.keys.end())
    return Vouched::failure(
        fmt::format("is signed by key {}, which is not listed{}; list that key if you know whose it is, {}",
                    signer.value().id(), policy.keys.empty() ? " (no key is)" : "", what_to_do));
  return Voucher{*listed};
}

Result<TrustedFile> open_trusted(const fs::path& path, const TrustPolicy& policy) {
  using Opened = Result<TrustedFile>;
  try {
    auto guarded = policy.require_signed ? open_guarded(path) : Result<GuardedFile>(open_anywhere(path));
    if (!guarded) return Opened::failure(guarded.error());
    const auto& found = guarded.value();
    auto file = SealedFile::copy_of(found.file.get(), found.path);
    auto voucher = vouch(policy, found.path.filename().string(), file.sha256(),
                         signature_beside(found.directory.get(), found.path));
    if (voucher) return TrustedFile{std::move(file), std::move(voucher).value()};
    if (policy.require_signed) return Opened::failure(voucher.error());
    return TrustedFile{std::move(file), std::nullopt};
  } catch (const std::exception& e) {
    return Opened::failure(fmt::format("cannot be read: {}", e.what()));
  }
}

}  // namespace hansa
