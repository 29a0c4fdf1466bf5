#include "data/silo_source.hpp"

#include <algorithm>
#include <numeric>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/rng.hpp"

namespace hansa::data {

std::int64_t SiloSource::length_for(std::int64_t max_length) const {
  if (!settings_.length) return std::min(settings_.usual_length, max_length);
  if (*settings_.length > max_length)
    throw Error(
        fmt::format("data source {}: length = {}, but the model's longest sequence has {} tokens. Set length to "
                    "{} or less, or leave it out",
                    settings_.name, *settings_.length, max_length, max_length));
  return *settings_.length;
}

void SiloSource::open(const std::filesystem::path& path, const Tokenizer* tokenizer, std::int64_t max_length) {
  if (!tokenizer)
    throw Error(fmt::format("data source {} needs the checkpoint's tokenizer, and there is none", settings_.name));
  const auto length = length_for(max_length);
  const auto key = std::pair(std::filesystem::absolute(path).lexically_normal().string(), tokenizer);
  auto found = silos_.find(key);
  if (found == silos_.end() || found->second.length != length)
    found = silos_.insert_or_assign(key, read(path, *tokenizer, length)).first;
  open_ = &found->second;
  rewind();
}

SiloSource::Silo SiloSource::read(const std::filesystem::path& path, const Tokenizer& tokenizer,
                                  std::int64_t length) const {
  const auto how = format(tokenizer);
  const bool cut_here = settings_.task == Task::Classification && settings_.too_long == Long::Cut;
  const auto longest = cut_here ? length : std::int64_t{1} << 30;
  Silo silo{
      path.string(), tokens_of(path, {*how, tokenizer, longest, settings_.on_bad}, settings_.cache, host_), {}, length};
  try {
    silo.windows = windows_of(silo.tokens, settings_.task, length, settings_.too_long);
  } catch (const Error& problem) {
    throw Error(
        fmt::format("silo {}: {}. Raise length, or set too_long = \"cut\" or \"skip\"", path.string(), problem.what()));
  }
  if (silo.windows.examples == 0)
    throw Error(fmt::format("silo {}: of {} records none has anything to learn within {} tokens; raise length",
                            path.string(), silo.tokens.tally().records, length));
  report(silo);
  return silo;
}

void SiloSource::report(const Silo& silo) const {
  const auto& tally = silo.tokens.tally();
  if (tally.skipped > 0)
    host_.log(Host::Level::Warning, fmt::format("silo {}: {} of {} records left out, the first at {}", silo.path,
                                                tally.skipped, tally.records, tally.first_skipped));
  if (silo.windows.too_long > 0 && settings_.too_long != Long::Windows)
    host_.log(Host::Level::Warning,
              fmt::format("silo {}: {} records are longer than {} tokens and were {}", silo.path, silo.windows.too_long,
                          silo.length, settings_.too_long == Long::Skip ? "left out" : "cut"));
}

const SiloSource::Silo& SiloSource::silo() const {
  if (!open_) throw Error(fmt::format("data source {}: used before a silo was opened", settings_.name));
  return *open_;
}

std::uint64_t SiloSource::examples() const { return silo().windows.examples; }

Metrics SiloSource::facts() const {
  const auto& tally = silo().tokens.tally();
  Metrics facts;
  if (tally.skipped > 0) facts.emplace_back("records_skipped", static_cast<double>(tally.skipped));
  if (silo().windows.dropped > 0) facts.emplace_back("records_dropped", static_cast<double>(silo().windows.dropped));
  return facts;
}

std::size_t SiloSource::units() const {
  return silo().windows.all.size() / (settings_.task == Task::Preference ? 2 : 1);
}

void SiloSource::set_order() {
  order_.resize(units());
  std::iota(order_.begin(), order_.end(), 0);
  position_ = 0;
  if (!seed_) return;
  SplitMix64 random(derive_seed(*seed_, "text.order", {pass_}));
  for (std::size_t i = order_.size(); i > 1; --i) std::swap(order_[i - 1], order_[random.below(i)]);
}

void SiloSource::shuffle(std::uint64_t seed) {
  seed_ = seed;
  pass_ = 0;
  set_order();
}
void SiloSource::rewind() {
  seed_.reset();
  pass_ = 0;
  set_order();
}

bool SiloSource::next_pass() {
  if (!seed_) return false;
  ++pass_;
  set_order();
  return true;
}

std::optional<Batch> SiloSource::next(std::int64_t rows) {
  silo();
  auto& held = *open_;
  const std::size_t unit = settings_.task == Task::Preference ? 2 : 1;
  if (unit == 2) rows = std::max<std::int64_t>(rows - rows % 2, 2);
  RowBuilder builder(held.tokens, settings_.task, rows, held.length, settings_.mode == Mode::Pad ? 1 : held.length);
  std::size_t taken = 0;
  while (position_ < order_.size() || next_pass()) {
    if (!builder.add(std::span(held.windows.all).subspan(order_[position_] * unit, unit))) break;
    ++position_;
    ++taken;
  }
  if (taken > order_.size() && !std::exchange(held.said_small, true))
    host_.log(Host::Level::Warning,
              fmt::format("silo {}: its {} records fill less than one batch of {} rows of {} tokens, so the same text "
                          "stands in a batch more than once. Add text, or make batch or length smaller",
                          held.path, held.windows.examples, rows, held.length));
  if (builder.empty()) return std::nullopt;
  return builder.take();
}

}  // namespace hansa::data
