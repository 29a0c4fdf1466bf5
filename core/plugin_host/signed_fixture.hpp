// A folder of a test's own with the good fixture in it, signed by a key that nobody else has.
#pragma once
#include <filesystem>
#include <string>

#include "base/file.hpp"
#include "plugin_host/registry.hpp"
#include "plugin_host/signature.hpp"
#include "test.hpp"

namespace hansa {

inline void write(const std::filesystem::path& path, std::string_view bytes) {
  write_file_atomically(path, bytes, Durability::Process);
}

class SignedFixture {
 public:
  SignedFixture() {
    std::filesystem::create_directory(folder());
    write(plugin(), good());
    sign();
    std::filesystem::permissions(folder(), std::filesystem::perms(0755));
  }
  std::filesystem::path folder() const { return directory_.path() / "plugins"; }
  std::filesystem::path plugin() const { return folder() / "hansa_fixture_good.so"; }
  std::filesystem::path signature() const { return folder() / "hansa_fixture_good.so.sig"; }
  const std::filesystem::path& root() const { return directory_.path(); }
  const PrivateKey& key() const { return key_; }
  TrustPolicy policy() const { return {true, {key_.public_half()}, {}}; }

  void sign() const { write(signature(), signature_of(key_, plugin().filename().string(), sha256())); }
  std::string sha256() const { return SealedFile::copy_of(plugin()).sha256(); }
  // What the registry makes of the plugin, or of a folder: its row, or the only one.
  PluginFile row(const TrustPolicy& policy) const { return row_of(policy, plugin()); }
  static PluginFile row_of(const TrustPolicy& policy, const std::filesystem::path& path) {
    StrategyRegistry registry;
    registry.set_trust(policy);
    registry.scan({path, "test"});
    return registry.files().front();
  }
  std::string refusal() const { return refusal_of(policy(), plugin()); }
  static std::string refusal_of(const TrustPolicy& policy, const std::filesystem::path& path) {
    const auto found = row_of(policy, path);
    CHECK(found.outcome == Outcome::Refused);
    CHECK(found.plugin == nullptr);
    return found.why;
  }

  static std::string good() { return read_file(HANSA_FIXTURES "/good/hansa_fixture_good.so"); }
  static std::string other() { return read_file(HANSA_FIXTURES "/duplicate/hansa_fixture_duplicate.so"); }

 private:
  TemporaryDirectory directory_;
  PrivateKey key_ = PrivateKey::generate();
};

}  // namespace hansa
