#include "data/tokenise.hpp"

#include <exception>

#include <fmt/format.h>
#include <hansa/tokenizer_origin.hpp>

#include "base/clock.hpp"
#include "base/digest.hpp"
#include "base/error.hpp"
#include "data/token_cache.hpp"

namespace hansa::data {

namespace {

constexpr std::size_t kTextAtOnce = 1 << 20, kRecordsAtOnce = 1024;
constexpr std::uint64_t kSmallSilo = 16 << 20;
constexpr double kSecondsBetweenLines = 10;
constexpr int kLayout = 1;  // of the cache's files and of what stands in them

std::uint64_t size_of(const std::vector<std::filesystem::path>& files) {
  std::uint64_t size = 0;
  for (const auto& file : files) size += std::filesystem::file_size(file);
  return size;
}

// Progress of the whole silo.
class Pace {
 public:
  Pace(const std::filesystem::path& silo, std::uint64_t total, Host& host)
      : silo_(silo), host_(host), total_(total), began_(clock_.now()), said_(began_) {}
  void at(std::uint64_t done) {
    if (host_.cancelled()) throw Error(fmt::format("tokenising {} was cancelled", silo_.string()));
    host_.progress(done, total_);
    const double now = clock_.now();
    if (now - said_ < kSecondsBetweenLines) return;
    said_ = now;
    host_.log(Host::Level::Info,
              fmt::format("tokenising {}: {}", silo_.filename().string(), pace_text(done, total_, now - began_)));
  }

 private:
  SteadyClock clock_;
  const std::filesystem::path& silo_;
  Host& host_;
  std::uint64_t total_;
  double began_, said_;
};

// Records of one file that wait to be encoded together.
class Bundle {
 public:
  Bundle(const Reading& reading, Host& host, TokenSink& sink, Tally& tally, const std::filesystem::path& file,
         std::string_view text)
      : reading_(reading), host_(host), sink_(sink), tally_(tally), file_(file), text_(text) {}
  bool full() const { return size_ >= kTextAtOnce || records_.size() >= kRecordsAtOnce; }
  void add(const Record& record) {
    records_.push_back(record);
    size_ += record.text.size();
  }
  void encode_all() {
    struct Outcome {
      std::vector<Encoded> examples;
      Flaw flaw;
      std::exception_ptr failure;
    };
    std::vector<Outcome> outcomes(records_.size());
    host_.parallel_for(records_.size(), [&](std::size_t i) {
      auto& outcome = outcomes[i];
      try {
        outcome.flaw = find_flaw(records_[i].raw);
        if (!outcome.flaw.reason.empty()) return;
        for (const auto& draft : reading_.format.parse(records_[i].text))
          outcome.examples.push_back(encode(draft, reading_.tokenizer, reading_.longest));
      } catch (const BadRecord& bad) {
        outcome.flaw = {0, bad.what()};
      } catch (...) {
        outcome.failure = std::current_exception();
      }
    });
    for (std::size_t i = 0; i < outcomes.size(); ++i) {
      if (outcomes[i].failure) std::rethrow_exception(outcomes[i].failure);
      take(records_[i], outcomes[i].flaw, outcomes[i].examples);
    }
    records_.clear();
    size_ = 0;
  }

 private:
  void take(const Record& record, const Flaw& flaw, const std::vector<Encoded>& examples) {
    ++tally_.records;
    if (flaw.reason.empty()) {
      for (const auto& one : examples) sink_.add(one);
      return;
    }
    const bool skips = reading_.on_bad == OnBad::Skip;
    if (skips && tally_.skipped++ > 0) return;
    const auto where = fmt::format("{}: {}", place_of(file_, text_, record.offset + flaw.offset), flaw.reason);
    if (!skips) throw Error(where + ". Mend the file, or set on_bad = \"skip\" to leave such records out");
    tally_.first_skipped = where;
  }

  const Reading& reading_;
  Host& host_;
  TokenSink& sink_;
  Tally& tally_;
  const std::filesystem::path& file_;
  std::string_view text_;
  std::vector<Record> records_;
  std::size_t size_ = 0;
};

std::string_view text_in(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

void check_something_is_left(const std::filesystem::path& silo, const Tally& tally, std::uint64_t examples) {
  if (tally.records == tally.skipped)
    throw Error(fmt::format("silo {}: no text in it{}", silo.string(),
                            tally.skipped == 0 ? std::string()
                                               : fmt::format("; {} records were skipped, the first at {}",
                                                             tally.skipped, tally.first_skipped)));
  if (examples == 0)
    throw Error(
        fmt::format("silo {}: no record gives a token to foretell; the tokenizer has neither a start nor an end "
                    "token",
                    silo.string()));
}

}  // namespace

std::string pace_text(std::uint64_t done, std::uint64_t total, double seconds) {
  const auto fraction = total == 0 ? 1.0 : static_cast<double>(done) / static_cast<double>(total);
  const auto left = fraction > 0 ? static_cast<std::int64_t>(seconds * (1 - fraction) / fraction + 0.5) : 0;
  return fmt::format("{:.0f} %, {:.1f} MB/s, {}:{:02} left", 100 * fraction, static_cast<double>(done) / 1e6 / seconds,
                     left / 60, left % 60);
}

Tally tokenise(const std::filesystem::path& silo, const Reading& reading, Host& host, TokenSink& sink) {
  const auto files = files_of(silo, reading.format.extension());
  Pace pace(silo, size_of(files), host);
  Tally tally;
  std::uint64_t before = 0;
  for (const auto& file : files) {
    const MappedFile mapped(file);
    const auto text = text_in(mapped);
    Bundle bundle(reading, host, sink, tally, file, text);
    reading.format.cut(text, [&](const Record& record) {
      bundle.add(record);
      if (!bundle.full()) return;
      bundle.encode_all();
      pace.at(before + record.offset + record.raw.size());
    });
    bundle.encode_all();
    before += text.size();
    pace.at(before);
  }
  check_something_is_left(silo, tally, sink.examples());
  return tally;
}

std::string cache_key(const std::filesystem::path& silo, const Reading& reading) {
  const auto* origin = dynamic_cast<const TokenizerOrigin*>(&reading.tokenizer);
  if (!origin) return {};
  auto text = fmt::format("layout {}\ntokenizer {}\nformat {}\nlongest {}\non_bad {}\n", kLayout, origin->digest(),
                          reading.format.key(), reading.longest, static_cast<int>(reading.on_bad));
  for (const auto& path : files_of(silo, reading.format.extension())) {
    const MappedFile file(path);
    text += fmt::format("file {} {} {}\n", path.filename().string(), file.bytes().size(), xxh3_128(file.bytes()).hex());
  }
  return sha256_hex(text).substr(0, 32);
}

Tokens tokens_of(const std::filesystem::path& silo, const Reading& reading, const std::string& cache, Host& host) {
  const auto in_memory = [&] {
    MemorySink sink;
    auto tally = tokenise(silo, reading, host, sink);
    return sink.finish(std::move(tally));
  };
  if (cache == "off" || (cache == "auto" && size_of(files_of(silo, reading.format.extension())) < kSmallSilo))
    return in_memory();
  const auto key = cache_key(silo, reading);
  if (key.empty()) {
    host.log(Host::Level::Warning,
             "this tokenizer has no digest, so its tokens cannot be kept on disk; they stay in memory");
    return in_memory();
  }
  return TokenCache(cache == "auto" ? default_cache_folder() : std::filesystem::path(cache), host)
      .get(key, [&](TokenSink& sink) { return tokenise(silo, reading, host, sink); });
}

}  // namespace hansa::data
