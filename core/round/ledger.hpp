// The privacy journal: what was spent, on the disk (always fsynced) before anything that depends on it is released.
// Round thread. A damaged ledger is refused: going on would forget spend. A line that was never finished is cut: its release
// cannot have happened, because charge() had not returned.
#pragma once
#include <cstdint>
#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include <hansa/types.hpp>

#include "round/journal.hpp"

namespace hansa {

struct SpendEvent {             // mirrors the SDK's DpEvent without its tensors
  std::string mechanism;        // "gaussian"
  double noise_multiplier = 0;  // standard deviation over sensitivity
  double sampling_rate = 1;
  std::uint64_t count = 1;
  std::string adjacency;  // "add-remove", "zero-out"
  bool operator==(const SpendEvent&) const = default;
};

class Ledger {
 public:
  explicit Ledger(std::filesystem::path path);

  enum class Charge : std::uint8_t {
    New,       // journalled now
    Repeated,  // the same event of this round was charged before and nothing of it was released: no second charge
  };
  // Before noise is drawn for a release. Once a version of `round` was released, charging it again is a new charge.
  Charge charge(Round round, std::uint32_t attempt, const SpendEvent& event);
  Charge would_be(Round round,
                  const SpendEvent& event) const;  // writes nothing: for the budget check before the charge
  // After the version file has its final name and before it is announced.
  void released(Round round, std::uint32_t attempt, Epoch epoch);

  const std::vector<SpendEvent>& events() const { return events_; }  // all that counts as spent, released or not
  bool was_released(Round round) const;
  std::string note() const { return journal_.note(); }

 private:
  struct Entry {
    Round round = 0;
    SpendEvent event;
    bool released = false;
  };
  void apply_charge(Round round, SpendEvent event);
  void apply_released(Round round);

  Journal journal_;
  std::vector<Entry> entries_;
  std::set<Round> released_;
  std::vector<SpendEvent> events_;
};

}  // namespace hansa
