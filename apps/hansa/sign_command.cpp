#include "sign_command.hpp"

#include <algorithm>
#include <ostream>

#include <fmt/format.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "plugin_host/elf_file.hpp"
#include "plugin_host/trust.hpp"

namespace hansa {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

std::vector<fs::path> files_of(const std::vector<fs::path>& given) {
  std::vector<fs::path> files;
  for (const auto& path : given) {
    if (!fs::is_directory(path)) {
      files.push_back(path);
      continue;
    }
    const auto before = files.size();
    for (const auto& entry : fs::directory_iterator(path))
      if (entry.path().extension() == ".so" && !entry.is_directory()) files.push_back(entry.path());
    if (files.size() == before)
      throw Error(fmt::format("{} holds no plugin (no file that ends in .so)", path.string()));
    std::sort(files.begin() + static_cast<std::ptrdiff_t>(before), files.end());
  }
  return files;
}

// The digest that was signed. A signature means "this is a plugin", so nothing else gets one.
std::string sign_one(const PrivateKey& key, const fs::path& path) {
  const auto real = fs::canonical(path);
  const auto file = SealedFile::copy_of(real);
  const auto facts = read_elf(file.bytes());
  if (!facts) throw Error(fmt::format("{} {}", path.string(), facts.error()));
  if (facts.value().note.empty())
    throw Error(fmt::format("{} is no plugin of Hansa (it has no build note): only those are signed", path.string()));
  auto beside = real;
  beside += kSignatureSuffix;
  write_file_atomically(beside, signature_of(key, real.filename().string(), file.sha256()), Durability::Power);
  return file.sha256();
}

struct Looked {
  fs::path path;
  std::string sha256;
  std::optional<PublicKey> signer;  // who signed this very file
  bool trusted = false;             // one of the keys asked for
  std::string why;                  // the end of a sentence about the file; "" when fine
};

Looked look_at(const fs::path& path, const std::vector<PublicKey>& keys) {
  Looked looked{path, {}, {}, false, {}};
  try {
    const auto real = fs::canonical(path);
    looked.sha256 = SealedFile::copy_of(real).sha256();
    auto beside = real;
    beside += kSignatureSuffix;
    if (!fs::exists(beside)) {
      looked.why = fmt::format("is not signed (there is no {} beside it)", beside.filename().string());
      return looked;
    }
    const auto signer = signer_of(read_file(beside), real.filename().string(), looked.sha256);
    if (!signer) {
      looked.why = signer.error();
      return looked;
    }
    looked.signer = signer.value();
    const auto listed = std::find(keys.begin(), keys.end(), *looked.signer);
    looked.trusted = listed != keys.end();
    if (looked.trusted) looked.signer = *listed;  // with the name that the key has here
    if (!looked.trusted && !keys.empty())
      looked.why = fmt::format("is signed by key {}, which is not one of --key", looked.signer->id());
  } catch (const std::exception& error) {
    looked.why = fmt::format("cannot be read: {}", error.what());
  }
  return looked;
}

Json json_of(const Looked& looked) {
  Json json{
      {"file", looked.path.string()}, {"fine", looked.why.empty()}, {"trusted", looked.trusted}, {"why", looked.why}};
  if (!looked.sha256.empty()) json["digest"] = fmt::format("{}{}", kDigestPrefix, looked.sha256);
  if (looked.signer)
    json["signed_by"] = {
        {"key_id", looked.signer->id()}, {"key", looked.signer->text()}, {"name", looked.signer->name}};
  return json;
}

}  // namespace

SignCommands::SignCommands(CLI::App& plugins) {
  auto* keygen = plugins.add_subcommand("keygen", "Make a pair of keys to sign plugins with (Ed25519)");
  keygen->add_option("--out", out_, "The private key's file; the public half gets the same name with .pub")->required();
  keygen->footer("Example: hansa plugins keygen --out release");
  keygen_ = keygen;
  auto* sign = plugins.add_subcommand("sign", "Sign plugin files: writes FILE.sig beside each");
  sign->add_option("files", files_, "Plugin files, or folders: then every .so in them")
      ->required()
      ->check(CLI::ExistingPath);
  sign->add_option("--key", key_, "The private key")->required()->check(CLI::ExistingFile);
  sign->footer("Example: hansa plugins sign lib/hansa/plugins --key release");
  sign_ = sign;
  auto* verify = plugins.add_subcommand("verify", "Say who signed plugin files, without loading them");
  verify->add_option("files", files_, "Plugin files, or folders: then every .so in them")
      ->required()
      ->check(CLI::ExistingPath);
  verify
      ->add_option("--key", trusted_,
                   "A public key (file, or ed25519:…): files must be signed by one of these (repeatable)")
      ->allow_extra_args(false);
  verify->add_flag("--json", json_, "Machine-readable");
  verify->footer("Example: hansa plugins verify lib/hansa/plugins --key release.pub");
  verify_ = verify;
}

bool SignCommands::chosen() const { return keygen_->parsed() || sign_->parsed() || verify_->parsed(); }

int SignCommands::run(std::ostream& out, std::ostream& err) const {
  try {
    return keygen_->parsed() ? make_key(out) : sign_->parsed() ? sign(out, err) : verify(out, err);
  } catch (const std::exception& error) {
    err << "error: " << error.what() << '\n';
    return 1;
  }
}

int SignCommands::make_key(std::ostream& out) const {
  const auto key = PrivateKey::generate();
  key.write_new(out_);
  const auto half = key.public_half();
  out << fmt::format(
      "private key  {0}: whoever has it can sign; it needs no place on the machines that run plugins\n"
      "public key   {0}.pub, key id {1}\n\nIn a pipeline:\n  [plugins]\n  require_signed = true\n  keys = [\"{0}.pub\"]"
      "   # or \"{2}\"\n",
      out_.string(), half.id(), half.text());
  return 0;
}

int SignCommands::sign(std::ostream& out, std::ostream& err) const {
  const auto key = PrivateKey::read(key_);
  if (!key) throw Error(fmt::format("{} {}", key_.string(), key.error()));
  const auto id = key.value().public_half().id();
  int code = 0;
  for (const auto& file : files_of(files_)) {
    try {
      const auto digest = sign_one(key.value(), file);
      out << fmt::format("signed {}{} by key {}: {}{}\n", file.string(), kSignatureSuffix, id, kDigestPrefix, digest);
    } catch (const std::exception& error) {
      err << "error: " << error.what() << '\n';
      code = 1;
    }
  }
  return code;
}

int SignCommands::verify(std::ostream& out, std::ostream& err) const {
  std::vector<PublicKey> keys;
  for (const auto& text : trusted_) {
    auto key = read_public_key(text);
    if (!key) throw Error(fmt::format("--key {}: it {}", text, key.error()));
    keys.push_back(std::move(key).value());
  }
  auto all = Json::array();
  int code = 0;
  for (const auto& file : files_of(files_)) {
    const auto looked = look_at(file, keys);
    if (!looked.why.empty()) code = 1;
    if (json_)
      all.push_back(json_of(looked));
    else if (looked.why.empty())
      out << fmt::format("{}: signed by {}, {}{}\n", file.string(), looked.signer->label(), kDigestPrefix,
                         looked.sha256);
    else
      err << fmt::format("{} {}{}\n", file.string(), looked.why,
                         looked.sha256.empty() ? "" : fmt::format("; it is {}{}", kDigestPrefix, looked.sha256));
  }
  if (json_) out << all.dump(2, ' ', false, Json::error_handler_t::replace) << '\n';
  if (!json_ && code == 0 && keys.empty())
    out << "Each is what its signer signed. Anybody can sign: --key PUB says whether it was one whom you trust.\n";
  return code;
}

}  // namespace hansa
