// A trainer's place of work: a model with an adapter in it, and a round around it as a node has them. One thread.
#pragma once
#include <memory>
#include <utility>
#include <vector>

#include <hansa/trainer.hpp>

#include "conformance/partners.hpp"

namespace hansa::conformance {

inline constexpr std::size_t kLessons = 12;  // documents of the silo

// Under a plain mean in a federation, or as a silo alone is trained for comparison: a round without channels. Trainers that
// need an aggregator of their own are tried alone.
enum class Company { Federated, Alone };

// A model with an adapter in it, as a node has them when its turn comes.
class Desk {
 public:
  Desk(const Subject& subject, std::shared_ptr<Bench> with, const HansaComponent& component, Task what = Task::Language,
       std::size_t count = kLessons)
      : bench(std::move(with)), adapter(make_partner<Adapter>(subject, component)), task(what), documents(count) {
    layout = adapter->layout(bench->modules, 0);
    clear();
  }
  void clear() {
    bench->model.inject({});
    bench->model.disable_dropout();
    adapter->create(bench->model, bench->modules, 0, 5);
    bench->model.inject(adapter->injections());
  }
  NamedTensors values() {
    NamedTensors all;
    for (Index i = 0; i < layout.tensors.size(); ++i)
      all.emplace_back(layout.tensors[i].name, adapter->parameter(i).detach().clone());
    return all;
  }
  std::vector<Role> all_shared() const { return std::vector<Role>(layout.tensors.size(), Role::Shared); }
  Lessons lessons(std::size_t first = 0) const { return {bench->real->vocabulary(), first, documents, task}; }

  std::shared_ptr<Bench> bench;
  Instance<Adapter> adapter;
  Layout layout;
  Task task;              // of its lessons
  std::size_t documents;  // of a silo
};

TrainContext context_of(const Desk&, Trainer&, const std::vector<Role>&, Company, const Case&);

// What a node does around train(): the channels that are for the trainer, derive(), and afterwards what was sent.
struct Turn {
  TrainResult result;
  std::vector<std::pair<Channel, std::vector<at::Tensor>>> outgoing;
};
enum class Watch { Nothing, Inputs };  // Inputs: Broken when what is lent is written to or kept
Turn take_turn(Desk&, Trainer&, DataSource&, const TrainContext&, Watch = Watch::Nothing);

// Rounds are played hundreds of times: a trainer with a whole-numbered parameter `steps` makes a few only.
Value brief(const Subject&, Value params);

// The first adapter of the registry, the company and the kind of lessons (texts, or else pairs of answers) with which this
// trainer trains at all.
struct Workplace {
  std::shared_ptr<Bench> bench;
  const HansaComponent* adapter = nullptr;
  Company company = Company::Federated;
  Task task = Task::Language;
};
Workplace workplace_for(const Subject&);  // throws NotConcerned without an adapter, Broken when it trains with none

// A desk with a trainer at it, as the checks want them.
struct Ready {
  Ready(const Subject& subject, Workplace at, std::size_t documents)
      : place(std::move(at)),
        desk(subject, place.bench, *place.adapter, place.task, documents),
        trainer(subject.make<Trainer>()),
        seed(subject.seed) {}
  TrainContext context(const std::vector<Role>& roles, Round round = 1) {
    return context_of(desk, *trainer, roles, place.company, {seed, 0, round});
  }
  Turn turn(Round round = 1) {
    auto data = desk.lessons();
    return take_turn(desk, *trainer, data, context(desk.all_shared(), round));
  }
  Workplace place;
  Desk desk;
  Instance<Trainer> trainer;
  std::uint64_t seed;
};

}  // namespace hansa::conformance
