#include "plugin_host/build_note.hpp"

#include <algorithm>
#include <array>
#include <charconv>

#include <fmt/ranges.h>
#include <hansa/plugin.h>

namespace hansa {
namespace {

constexpr std::string_view kKindPrefix = "kind.";
constexpr std::string_view kThisSdk = "this host's SDK";
constexpr std::string_view kNewerHost = "; or use a newer hansa";

struct Field {  // a key whose values must agree
  std::string_view key, what, remedy;
};
constexpr std::array kFields = {
    Field{"torch", "LibTorch", "-DHANSA_LIBTORCH set to this host's LibTorch"},
    Field{"torch_cuda", "LibTorch with CUDA", "-DHANSA_LIBTORCH set to this host's LibTorch"},
    Field{"cxx_library", "C++ library", "this host's compiler and C++ library"},
    Field{"cxx_strings", "C++ string layout", "the same _GLIBCXX_USE_CXX11_ABI"},
    Field{"debug_containers", "_GLIBCXX_DEBUG", "the same _GLIBCXX_DEBUG"},
    Field{"sanitiser", "sanitiser", "the same -fsanitize flags"},
};
// Runtimes that must come first in the process, and so end it when a plugin brings them in.
constexpr std::array<std::pair<std::string_view, std::string_view>, 5> kSanitiserRuntimes = {
    {{"libasan.", "address"},
     {"libclang_rt.asan", "address"},
     {"libtsan.", "thread"},
     {"libhwasan.", "hwaddress"},
     {"libmsan.", "memory"}}};

std::string_view value_or_none(const BuildNote& note, std::string_view key) {
  const auto* value = find(note, key);
  return value ? std::string_view(*value) : "nothing stated";
}

struct Differences {
  std::vector<std::string> fields, remedies;
  std::string_view otherwise;  // another way out than rebuilding
  void add(std::string what, std::string_view remedy) {
    fields.push_back(std::move(what));
    if (!remedy.empty() && std::find(remedies.begin(), remedies.end(), remedy) == remedies.end())
      remedies.emplace_back(remedy);
  }
  std::string text() const {
    return fmt::format("was built for another host: {}. Rebuild it with {}: {}{}", fmt::join(fields, "; "),
                       fmt::join(remedies, " and "), kRebuildCommand, otherwise);
  }
};

int number_in(std::string_view text) {
  int number = -1;
  std::from_chars(text.data(), text.data() + text.size(), number);
  return number;
}

std::pair<int, int> version_of(std::string_view text) {
  std::pair<int, int> version{-1, -1};
  const auto dot = std::from_chars(text.data(), text.data() + text.size(), version.first).ptr;
  if (dot != text.data() + text.size() && *dot == '.')
    std::from_chars(dot + 1, text.data() + text.size(), version.second);
  return version;
}

void compare_contract(const BuildNote& file, const BuildNote& host, Differences& found) {
  const auto built = value_or_none(file, "contract");
  const auto [major, minor] = version_of(built);
  if (major == HANSA_ABI_MAJOR && minor >= 0 && minor <= HANSA_ABI_MINOR) return;
  found.add(fmt::format("contract: built for {}, this host needs {}.0 to {}", built, HANSA_ABI_MAJOR,
                        value_or_none(host, "contract")),
            kThisSdk);
  if (major > HANSA_ABI_MAJOR || (major == HANSA_ABI_MAJOR && minor > HANSA_ABI_MINOR)) found.otherwise = kNewerHost;
}

// "aggregator/2" when this host knows "aggregator/1": name what it knows.
void compare_kinds(const BuildNote& file, const BuildNote& host, Differences& found) {
  for (const auto& [key, hash] : file) {
    if (!key.starts_with(kKindPrefix)) continue;
    const std::string_view kind = std::string_view(key).substr(kKindPrefix.size());
    const auto* known = find(host, key);
    if (known && *known == hash) continue;
    if (known) {
      found.add(fmt::format("interface {}: built for {}, this host needs {}", kind, hash, *known), kThisSdk);
      continue;
    }
    const auto slash = std::min(kind.find('/'), kind.size());
    std::vector<std::string> revisions;
    int newest = 0;
    for (const auto& other : kinds_of(host))
      if (other.starts_with(fmt::format("{}/", kind.substr(0, slash)))) {
        revisions.push_back(other);
        newest = std::max(newest, number_in(std::string_view(other).substr(slash + 1)));
      }
    found.add(revisions.empty()
                  ? fmt::format("interface: built for {}, this host knows no kind '{}'", kind, kind.substr(0, slash))
                  : fmt::format("interface: built for {}, this host needs {}", kind, fmt::join(revisions, " or ")),
              kThisSdk);
    if (number_in(kind.substr(std::min(slash + 1, kind.size()))) > newest) found.otherwise = kNewerHost;
  }
}

void compare_fields(const ElfFacts& facts, const BuildNote& file, const BuildNote& host, Differences& found) {
  for (const auto& field : kFields) {
    auto built = value_or_none(file, field.key);
    const auto needed = value_or_none(host, field.key);
    // The note says how the sources were compiled; the libraries say how they were linked.
    if (field.key == "sanitiser" && built == needed)
      for (const auto& [library, sanitiser] : kSanitiserRuntimes)
        if (std::any_of(facts.needed.begin(), facts.needed.end(),
                        [&](const auto& name) { return name.starts_with(library); }))
          built = sanitiser;
    if (built != needed)
      found.add(fmt::format("{}: built for {}, this host needs {}", field.what, built, needed), field.remedy);
  }
}

}  // namespace

BuildNote parse_note(std::string_view text) {
  BuildNote note;
  while (!text.empty()) {
    const auto end = std::min(text.find('\n'), text.size());
    const auto line = text.substr(0, end);
    if (const auto equals = line.find('='); equals != std::string_view::npos)
      note.emplace_back(line.substr(0, equals), line.substr(equals + 1));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return note;
}

const std::string* find(const BuildNote& note, std::string_view key) {
  for (const auto& [name, value] : note)
    if (name == key) return &value;
  return nullptr;
}

std::vector<std::string> kinds_of(const BuildNote& note) {
  std::vector<std::string> kinds;
  for (const auto& [key, value] : note)
    if (key.starts_with(kKindPrefix)) kinds.push_back(key.substr(kKindPrefix.size()));
  return kinds;
}

std::optional<std::string> incompatibility(const ElfFacts& facts, const BuildNote& host) {
  if (facts.note.empty())
    return fmt::format(
        "has no build note (section {}): nothing says what it was built for, and this host needs to know before it "
        "loads "
        "anything. Build it with hansa_add_plugin of this host's SDK: {}",
        HANSA_NOTE_SECTION, kRebuildCommand);
  const auto file = parse_note(facts.note);
  Differences found;
  compare_contract(file, host, found);
  compare_kinds(file, host, found);
  compare_fields(facts, file, host, found);
  if (!found.fields.empty()) return found.text();

  const auto runtime = value_or_none(host, "cxx_library") == "libc++" ? std::string_view("libc++.") : "libstdc++.";
  if (std::none_of(facts.needed.begin(), facts.needed.end(),
                   [&](const auto& name) { return name.starts_with(runtime); }))
    return fmt::format(
        "was built with a C++ runtime of its own ({0}so is not among its libraries), so that its exceptions and types "
        "would be strangers; this host needs a plugin to share {0}so. Link it without -static-libstdc++ and "
        "-static-libgcc: {1}",
        runtime, kRebuildCommand);

  std::vector<std::string> extra;
  bool entry = false;
  for (const auto& name : facts.exports)
    if (name == HANSA_ENTRY_SYMBOL)
      entry = true;
    else
      extra.push_back(name);
  if (!entry)
    return fmt::format(
        "does not export {}, which this host needs. Describe the plugin with HANSA_PLUGIN (hansa/plugin.hpp) and build "
        "it "
        "with hansa_add_plugin",
        HANSA_ENTRY_SYMBOL);
  if (!extra.empty()) {
    const auto count = extra.size();
    extra.resize(std::min<std::size_t>(count, 3));
    return fmt::format(
        "exports {} more than {}: {}{}. This host needs that one alone, because two plugins would share the others. "
        "Build it with hansa_add_plugin, which hides them",
        count == 1 ? "one symbol" : fmt::format("{} symbols", count), HANSA_ENTRY_SYMBOL, fmt::join(extra, ", "),
        count > extra.size() ? ", …" : "");
  }
  return std::nullopt;
}

}  // namespace hansa
