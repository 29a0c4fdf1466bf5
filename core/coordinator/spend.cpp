#include "coordinator/spend.hpp"

#include <dp/accountant.hpp>

namespace hansa::coordinator {
namespace {

DpEvent event_of(const SpendEvent& spend) {
  DpEvent event{spend.mechanism, spend.noise_multiplier, spend.sampling_rate, spend.count};
  for (auto adjacency : {Adjacency::AddRemove, Adjacency::ZeroOut, Adjacency::ReplaceOne}) {
    if (spend.adjacency == name_of(adjacency)) event.adjacency = adjacency;
  }
  return event;
}

}  // namespace

double epsilon_of(std::span<const SpendEvent> spent, double delta) {
  std::vector<DpEvent> events;
  for (const auto& spend : spent) events.push_back(event_of(spend));
  return dp::epsilon(events, delta);
}

}  // namespace hansa::coordinator
