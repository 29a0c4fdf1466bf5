// What a data source can say for a run's report about the silo that is open: counts, nothing of its text. Optional: a
// DataSource that is one of these too gives it by dynamic_cast<const SiloFacts*>(&source); others give null.
#pragma once
#include <hansa/types.hpp>

namespace hansa {

class SiloFacts {
 public:
  virtual ~SiloFacts() = default;
  virtual Metrics facts() const = 0;  // "records_skipped": left out because they could not be used
};

}  // namespace hansa
