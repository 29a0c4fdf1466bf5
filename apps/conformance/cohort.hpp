// A made-up cohort for aggregators: clients with random changes over a small layout, handed out as the host hands them out.
// One thread.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <hansa/aggregator.hpp>
#include <hansa/testing/fake_updates.hpp>

#include "conformance/check.hpp"
#include "conformance/probes.hpp"

namespace hansa::conformance {

// What decides a cohort, so that a check can change one thing and compare.
struct CohortShape {
  std::vector<std::vector<std::int64_t>> lone;                  // shapes of lone tensors
  std::vector<std::pair<std::int64_t, std::int64_t>> low_rank;  // [out, in] of modules with low-rank pairs
  std::int64_t rank = 2;                                        // of the pipeline
  std::vector<double> ranks;                                    // one per client: 0, or a rank of its own
};
CohortShape cohort_shape(const Case&, std::size_t fewest_clients, const std::string& groups, bool ranks_differ);
std::string describe(const CohortShape&);

struct Client {
  Contribution who;
  double rank = 0;
  std::map<std::string, at::Tensor> deltas;  // by tensor name; those of its rank's layout
};

class Cohort {
 public:
  Cohort(CohortShape shape, std::uint64_t seed);
  const CohortShape& shape() const { return shape_; }
  std::vector<Client>& clients() { return clients_; }
  const std::vector<Client>& clients() const { return clients_; }
  Layout layout(double rank = 0) const;  // trainable
  RoundPlan plan(Round) const;

 private:
  friend class RoundOfUpdates;
  CohortShape shape_;
  std::vector<Client> clients_;
};

// What a rule put, copied as the host copies it.
class Recorded final : public Results {
 public:
  enum class Keep : std::uint8_t { Copies, Nothing };
  explicit Recorded(Keep keep = Keep::Copies) : keep_(keep) {}
  void of(const Updates& updates) { updates_ = &updates; }  // whose members the next ones are
  void put(std::size_t member, const at::Tensor& delta) override;
  void put_slice(std::size_t member, std::int64_t first, const at::Tensor& part) override;
  void put_for(std::string_view view, std::size_t member, const at::Tensor& value) override;
  void append(std::string_view channel, std::string_view tensor, const at::Tensor&) override;
  void end_of_group();  // has every member been given?

  const std::map<std::string, at::Tensor>& changes() const { return changes_; }
  // What was put for a view, "NAME of view 'V'", and what was appended, "NAME in channel 'C'".
  const std::map<std::string, at::Tensor>& others() const { return others_; }
  NamedTensors trace() const;
  const std::string& wrong() const { return wrong_; }  // the first thing that a host would refuse; "": nothing

 private:
  void note(const std::string& what) {
    if (wrong_.empty()) wrong_ = what;
  }
  void keep(const std::string& name, const at::Tensor& value);
  Keep keep_;
  const Updates* updates_ = nullptr;
  std::map<std::size_t, std::int64_t> given_;  // elements by member, of this group
  std::map<std::string, at::Tensor> changes_, others_;
  std::string wrong_;
};

// The groups as a rule is handed them in this round. Names the clients' views.
std::vector<testing::FakeUpdates> groups_of(Aggregator&, Cohort&, const RoundPlan&);

enum class Whole : std::uint8_t { Round, HalfOfIt };
struct Lending {
  std::function<at::Tensor(const at::Tensor&)> lend;  // what the rule gets for a tensor that it asks for
  std::function<void()> after_call = [] {};           // of survey() and reduce()
  std::function<void()> before_round = [] {};         // when everything of the cohort's own stands
};
// Plays one round on a rule; without `lending` it gets the cohort's own tensors.
Metrics play_round(Aggregator&, Cohort&, Round, Recorded&, const Lending* lending = nullptr, Whole = Whole::Round);

}  // namespace hansa::conformance
