// From a silo's files to tokens. Records are parsed and encoded some hundred at a time, on the host's threads, and kept in
// the order of the files. A long work reports its progress, says how long it will take, and stops when it is cancelled.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>

#include <hansa/component.hpp>

#include "data/format.hpp"
#include "data/tokens.hpp"

namespace hansa::data {

struct Reading {
  const Format& format;
  const Tokenizer& tokenizer;
  std::int64_t longest = 0;  // of texts to be classified, in tokens
  OnBad on_bad = OnBad::Error;
};
// `cache`: "auto" keeps silos above 16 MiB in the default folder and others in memory; "off": in memory; else the folder that
// keeps all. Throws Error naming file and line, also when nothing usable is left.
Tokens tokens_of(const std::filesystem::path& silo, const Reading&, const std::string& cache, Host&);

// The pieces of it.
Tally tokenise(const std::filesystem::path& silo, const Reading&, Host&, TokenSink&);
// The digest of the files, the tokenizer and all parameters; "" where the tokenizer has no digest.
std::string cache_key(const std::filesystem::path& silo, const Reading&);
// "34 %, 12.3 MB/s, 1:05 left"
std::string pace_text(std::uint64_t done, std::uint64_t total, double seconds);

}  // namespace hansa::data
