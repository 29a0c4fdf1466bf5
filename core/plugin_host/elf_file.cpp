#include "plugin_host/elf_file.hpp"

#include <elf.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include <fmt/format.h>
#include <hansa/build_note.h>

namespace hansa {
namespace {

using Bytes = std::span<const std::byte>;
constexpr std::uint64_t kMostSections = 1 << 16, kMostSymbols = 1 << 22, kMostNeeded = 4096, kLongestName = 4096;

struct Broken {};  // bytes that contradict themselves; leaves this file as a sentence

Bytes part(Bytes bytes, std::uint64_t first, std::uint64_t size) {
  if (first > bytes.size() || size > bytes.size() - first) throw Broken{};
  return bytes.subspan(first, size);
}
template <class T>
T at(Bytes bytes, std::uint64_t offset) {
  T value;
  std::memcpy(&value, part(bytes, offset, sizeof(T)).data(), sizeof(T));
  return value;
}
std::string text_at(Bytes strings, std::uint64_t offset) {
  const auto rest = part(strings, offset, strings.size() - std::min<std::uint64_t>(offset, strings.size()));
  const auto end = std::find(rest.begin(), rest.end(), std::byte{0});
  if (end == rest.end() || end - rest.begin() > std::ptrdiff_t(kLongestName)) throw Broken{};
  return {reinterpret_cast<const char*>(rest.data()), static_cast<std::size_t>(end - rest.begin())};
}

class Reader {
 public:
  explicit Reader(Bytes bytes) : bytes_(bytes), header_(at<Elf64_Ehdr>(bytes, 0)) {
    if (header_.e_shentsize != sizeof(Elf64_Shdr) || header_.e_shnum == 0) throw Broken{};
    for (std::uint64_t i = 0; i < std::min<std::uint64_t>(header_.e_shnum, kMostSections); ++i)
      sections_.push_back(at<Elf64_Shdr>(bytes_, header_.e_shoff + i * sizeof(Elf64_Shdr)));
  }
  ElfFacts facts() const {
    ElfFacts facts;
    facts.machine = header_.e_machine;
    const auto names = body(linked(header_.e_shstrndx));
    for (const auto& section : sections_) {
      if (section.sh_type == SHT_DYNAMIC) read_dynamic(section, facts);
      if (section.sh_type == SHT_DYNSYM) read_symbols(section, facts);
      if (section.sh_type != SHT_NOBITS && text_at(names, section.sh_name) == HANSA_NOTE_SECTION)
        read_note(section, facts);
    }
    std::sort(facts.exports.begin(), facts.exports.end());
    return facts;
  }

 private:
  const Elf64_Shdr& linked(std::uint64_t index) const {
    if (index >= sections_.size()) throw Broken{};
    return sections_[index];
  }
  Bytes body(const Elf64_Shdr& section) const { return part(bytes_, section.sh_offset, section.sh_size); }

  void read_dynamic(const Elf64_Shdr& section, ElfFacts& facts) const {
    const auto entries = body(section);
    const auto strings = body(linked(section.sh_link));
    for (std::uint64_t i = 0; i + sizeof(Elf64_Dyn) <= entries.size(); i += sizeof(Elf64_Dyn)) {
      const auto entry = at<Elf64_Dyn>(entries, i);
      if (entry.d_tag == DT_NULL) return;
      if (entry.d_tag != DT_NEEDED) continue;
      if (facts.needed.size() >= kMostNeeded) throw Broken{};
      facts.needed.push_back(text_at(strings, entry.d_un.d_val));
    }
  }
  void read_symbols(const Elf64_Shdr& section, ElfFacts& facts) const {
    const auto entries = body(section);
    const auto strings = body(linked(section.sh_link));
    if (entries.size() / sizeof(Elf64_Sym) > kMostSymbols) throw Broken{};
    for (std::uint64_t i = 0; i + sizeof(Elf64_Sym) <= entries.size(); i += sizeof(Elf64_Sym)) {
      const auto symbol = at<Elf64_Sym>(entries, i);
      const auto visibility = ELF64_ST_VISIBILITY(symbol.st_other);
      if (symbol.st_shndx == SHN_UNDEF || ELF64_ST_BIND(symbol.st_info) == STB_LOCAL) continue;
      if (visibility == STV_HIDDEN || visibility == STV_INTERNAL) continue;
      facts.exports.push_back(text_at(strings, symbol.st_name));
    }
  }
  void read_note(const Elf64_Shdr& section, ElfFacts& facts) const {
    const auto note = body(section);
    const auto header = at<Elf64_Nhdr>(note, 0);
    const std::uint64_t name_space = (std::uint64_t(header.n_namesz) + 3) / 4 * 4;
    const auto name = part(note, sizeof header, header.n_namesz);
    constexpr std::string_view kName(HANSA_NOTE_NAME, sizeof HANSA_NOTE_NAME);
    if (header.n_type != HANSA_NOTE_TYPE || name.size() != kName.size() ||
        std::memcmp(name.data(), kName.data(), kName.size()) != 0)
      throw Broken{};
    const auto text = part(note, sizeof header + name_space, header.n_descsz);
    facts.note.assign(reinterpret_cast<const char*>(text.data()), text.size());
    if (const auto end = facts.note.find('\0'); end != std::string::npos) facts.note.resize(end);
  }

  Bytes bytes_;
  Elf64_Ehdr header_;
  std::vector<Elf64_Shdr> sections_;
};

}  // namespace

std::string_view machine_name(std::uint16_t machine) {
  switch (machine) {
    case EM_X86_64: return "x86-64";
    case EM_AARCH64: return "AArch64";
    case EM_RISCV: return "RISC-V";
    case EM_PPC64: return "PowerPC 64";
    case EM_386: return "x86 (32 bit)";
    default: return "another machine";
  }
}

std::uint16_t host_machine() {
#if defined(__x86_64__)
  return EM_X86_64;
#elif defined(__aarch64__)
  return EM_AARCH64;
#elif defined(__riscv)
  return EM_RISCV;
#else
#error "name this machine's ELF number here"
#endif
}

Result<ElfFacts> read_elf(Bytes bytes) {
  using Facts = Result<ElfFacts>;
  if (bytes.size() < SELFMAG || std::memcmp(bytes.data(), ELFMAG, SELFMAG) != 0)
    return Facts::failure("is not a shared library (no ELF file)");
  try {
    const auto ident = [&](std::size_t i) { return std::to_integer<int>(part(bytes, i, 1)[0]); };
    if (ident(EI_CLASS) != ELFCLASS64 || ident(EI_DATA) != ELFDATA2LSB)
      return Facts::failure("is an ELF file for another machine (this host loads 64-bit, little-endian ones)");
    const auto header = at<Elf64_Ehdr>(bytes, 0);
    if (header.e_type != ET_DYN) return Facts::failure("is an ELF file, but no shared library");
    if (header.e_machine != host_machine())
      return Facts::failure(fmt::format("was built for {}, this host needs {}. Rebuild it for this machine",
                                        machine_name(header.e_machine), machine_name(host_machine())));
    return Reader(bytes).facts();
  } catch (const Broken&) {
    return Facts::failure("is a damaged or truncated shared library (its section table points outside the file)");
  }
}

}  // namespace hansa
