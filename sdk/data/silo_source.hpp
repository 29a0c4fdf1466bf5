// The body of every data source over files: opens silos, keeps their tokens, gives batches in order. A component derives from
// it with its parameters' settings and its format. Training thread only. Opened silos stay open.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include <hansa/data_source.hpp>
#include <hansa/plugin.hpp>
#include <hansa/silo_facts.hpp>

#include "data/format.hpp"
#include "data/rows.hpp"
#include "data/tokenise.hpp"

namespace hansa::data {

enum class Mode : std::uint8_t { Pack, Pad };

struct Settings {
  std::string name;  // of the component, for messages
  Task task = Task::Language;
  std::optional<std::int64_t> length;
  std::int64_t usual_length = 128;  // where none is given and the model allows it
  Mode mode = Mode::Pack;
  Long too_long = Long::Windows;
  OnBad on_bad = OnBad::Error;
  std::string cache = "auto";
};

class SiloSource : public Stateless<DataSource>, public SiloFacts {
 public:
  SiloSource(Settings settings, Host& host) : settings_(std::move(settings)), host_(host) {}
  void open(const std::filesystem::path& silo, const Tokenizer* tokenizer, std::int64_t max_length) override;
  std::uint64_t examples() const override;
  void shuffle(std::uint64_t seed) override;
  void rewind() override;
  std::optional<Batch> next(std::int64_t rows) override;
  Metrics facts() const override;

 protected:
  virtual std::unique_ptr<Format> format(const Tokenizer&) const = 0;

 private:
  struct Silo {
    std::string path;
    Tokens tokens;
    Windows windows;
    std::int64_t length = 0;
    bool said_small = false;
  };
  std::int64_t length_for(std::int64_t max_length) const;
  Silo read(const std::filesystem::path&, const Tokenizer&, std::int64_t length) const;
  void report(const Silo&) const;
  const Silo& silo() const;   // throws before open
  std::size_t units() const;  // what an order orders: windows, or pairs
  bool next_pass();           // false: the pass in file order is over
  void set_order();

  Settings settings_;
  Host& host_;
  std::map<std::pair<std::string, const Tokenizer*>, Silo> silos_;
  Silo* open_ = nullptr;
  std::optional<std::uint64_t> seed_;  // none: file order
  std::uint64_t pass_ = 0;
  std::vector<std::uint32_t> order_;
  std::size_t position_ = 0;
};

// Parameters that all of them share.
enum class TooLong : std::uint8_t { Cut, Skip, Error };  // of examples that have to stay whole
constexpr Long rule_of(TooLong rule) {
  return rule == TooLong::Cut ? Long::Cut : rule == TooLong::Skip ? Long::Skip : Long::Error;
}

template <class Builder, class P>
Builder& declare_rows(Builder& builder, std::optional<std::int64_t> P::*length, OnBad P::*on_bad, std::string P::*cache,
                      const std::string& usual) {
  return builder
      .param(length, "length",
             "Tokens of a row. Left out: " + usual + ", or the model's longest sequence where that is less.",
             range(1, 1 << 20), "tokens")
      .param(on_bad, "on_bad",
             "What to do with a record that cannot be used: stop with file and line, or leave it out and count it.",
             choices({"error", "skip"}))
      .param(cache, "cache",
             "Where tokens are kept from run to run: \"auto\" (silos above 16 MiB, in ~/.cache/hansa), \"off\" (in "
             "memory), or a folder.");
}

}  // namespace hansa::data
