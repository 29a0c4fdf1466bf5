// Tokens on disk, mapped instead of read, so that they may be larger than memory. An entry is a directory named after the
// digest of all that it depends on (tokenizer, files, parameters); it appears by one rename when it is complete. Two processes
// that want the same one: the second waits for the first. One that was killed leaves <key>.part, which the next one replaces.
// Nothing is ever thrown out: a user may delete the folder, or any entry, at any time. Entries hold the text of a silo as
// numbers: only their owner may read them. Throws Error; DiskFull names the remedy.
#pragma once
#include <filesystem>
#include <functional>
#include <string>

#include <hansa/component.hpp>

#include "data/tokens.hpp"

namespace hansa::data {

// $HANSA_CACHE_DIR, or else $XDG_CACHE_HOME/hansa, or else ~/.cache/hansa; "tokens" below it.
std::filesystem::path default_cache_folder();

class TokenCache {
 public:
  TokenCache(std::filesystem::path folder, Host& host) : folder_(std::move(folder)), host_(host) {}
  // The entry, built by `build` where there is none: it fills the sink and returns what it met on the way.
  Tokens get(const std::string& key, const std::function<Tally(TokenSink&)>& build);

 private:
  std::filesystem::path folder_;
  Host& host_;
};

}  // namespace hansa::data
