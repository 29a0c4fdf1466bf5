// One instance of a component, used as a run uses it: what the checks of every kind need to know of a kind. One thread.
#pragma once
#include <functional>
#include <memory>
#include <string>

#include <hansa/component.hpp>

#include "conformance/check.hpp"

namespace hansa::conformance {

class Driver {
 public:
  virtual ~Driver() = default;
  virtual Component& component() = 0;
  // One round. Gives everything that came out of the component, numbers as tensors of one element; made from the case and the
  // component's state alone.
  virtual NamedTensors play(const Case&) = 0;
  virtual void leave_half_way(const Case&) {}  // begins a round and does not end it
  virtual std::string describe(const Case&) const = 0;

  // Throw Broken when the component writes to an input or keeps a handle to one. Set by the check that is about it.
  bool watches_inputs = false;
};

struct Drive {
  std::function<std::unique_ptr<Driver>(const Value& params, std::uint64_t run_seed)> make;
  bool quick = true;  // a round takes microseconds: it is played a thousand times
};
// Throws NotConcerned when partners are missing.
Drive drive_of(const Subject&);

// One for each group of kinds; `drive_of` chooses.
Drive drive_aggregator(const Subject&);
Drive drive_compressor(const Subject&);
Drive drive_privacy(const Subject&);
Drive drive_server_optimizer(const Subject&);
Drive drive_selector(const Subject&);
Drive drive_round_policy(const Subject&);
Drive drive_model(const Subject&);
Drive drive_adapter(const Subject&);
Drive drive_trainer(const Subject&);
Drive drive_data_source(const Subject&);
Drive drive_evaluator(const Subject&);

// What each kind promises beyond that.
std::vector<Check> component_checks();
std::vector<Check> aggregator_checks();
std::vector<Check> compressor_checks();
std::vector<Check> privacy_checks();
std::vector<Check> server_optimizer_checks();
std::vector<Check> selector_checks();
std::vector<Check> round_policy_checks();
std::vector<Check> model_checks();
std::vector<Check> adapter_checks();
std::vector<Check> trainer_checks();
std::vector<Check> data_source_checks();
std::vector<Check> evaluator_checks();

}  // namespace hansa::conformance
