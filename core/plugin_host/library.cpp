#include <c10/util/Exception.h>

#include "plugin_host/library.hpp"

#include <dlfcn.h>

#define BOOST_DLL_USE_STD_FS
#include <fmt/format.h>
#include <boost/dll/shared_library.hpp>

#include "base/digest.hpp"
#include "base/file.hpp"
#include "plugin_host/table_check.hpp"

namespace hansa {
namespace {

Result<HansaPluginEntry> load(const std::filesystem::path& path) {
  using Entry = Result<HansaPluginEntry>;
  namespace dll = boost::dll;
  try {
    dll::shared_library library(path, dll::load_mode::rtld_now | dll::load_mode::rtld_local);
    auto* entry = &library.get<const HansaPlugin*()>(HANSA_ENTRY_SYMBOL);
    // One more reference, never given back: `library` closes at the end of this scope, the file stays.
    if (!dlopen(path.c_str(), RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE))
      return Entry::failure("vanished while it was loaded");
    return HansaPluginEntry(entry);
  } catch (const std::exception& e) {
    return Entry::failure(fmt::format("cannot be loaded: {}", e.what()));
  }
}

std::string entry_threw(std::string_view what) {
  return fmt::format(
      "its entry threw: {}; this host needs an entry that describes the plugin and does no more. Mend what it "
      "complains "
      "of, or take the file off the search path",
      what);
}

// What the bytes say of themselves, before anything of them runs.
Result<OpenedPlugin> read_facts(std::span<const std::byte> bytes, const BuildNote& host) {
  using Opened = Result<OpenedPlugin>;
  const auto facts = read_elf(bytes);
  if (!facts) return Opened::failure(facts.error());
  if (auto why = incompatibility(facts.value(), host)) return Opened::failure(std::move(*why));
  OpenedPlugin opened;
  opened.note = parse_note(facts.value().note);
  return opened;
}

Result<OpenedPlugin> finish(OpenedPlugin opened, const std::filesystem::path& path) {
  using Opened = Result<OpenedPlugin>;
  auto entry = load(path);
  if (!entry) return Opened::failure(entry.error());
  try {
    opened.plugin = entry.value()();
  } catch (const c10::Error& e) {
    return Opened::failure(entry_threw(e.what_without_backtrace()));
  } catch (const std::exception& e) {
    return Opened::failure(entry_threw(e.what()));
  } catch (...) {
    return Opened::failure(entry_threw("something that is not a std::exception"));
  }
  if (auto why = table_problem(opened.plugin, kinds_of(opened.note)))
    return Opened::failure(fmt::format("describes itself wrongly: {}", *why));
  return opened;
}

}  // namespace

Result<OpenedPlugin> open_plugin(const std::filesystem::path& path, const BuildNote& host) {
  using Opened = Result<OpenedPlugin>;
  try {
    const MappedFile file(path);
    auto opened = read_facts(file.bytes(), host);
    if (!opened) return opened;
    opened.value().sha256 = sha256_hex({reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()});
    return finish(std::move(opened).value(), path);
  } catch (const Error& e) {
    return Opened::failure(fmt::format("cannot be read: {}", e.what()));
  }
}

Result<OpenedPlugin> open_plugin(const SealedFile& file, const BuildNote& host) {
  auto opened = read_facts(file.bytes(), host);
  if (!opened) return opened;
  opened.value().sha256 = file.sha256();
  try {
    return finish(std::move(opened).value(), file.name_for_loader());
  } catch (const Error& e) {
    return Result<OpenedPlugin>::failure(fmt::format("cannot be loaded: {}", e.what()));
  }
}

}  // namespace hansa
