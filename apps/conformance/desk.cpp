#include "conformance/desk.hpp"

#include <fmt/format.h>
#include <hansa/layouts.hpp>

#include "conformance/probes.hpp"

namespace hansa::conformance {

TrainContext context_of(const Desk& desk, Trainer& trainer, const std::vector<Role>& roles, Company company,
                        const Case& input) {
  TrainContext context;
  context.plan.round = input.round;
  context.plan.base = input.round - 1;
  context.plan.population = 4;
  context.plan.expected_cohort = 4;
  context.exchange.roles = roles;
  context.node = 7;
  context.rounds = 10;
  context.seed = 1000 * input.round + input.seed;
  if (company == Company::Alone) return context;
  const auto add = [&](std::vector<Channel>& to, const Layout& part, std::vector<Channel> own) {
    to.push_back({std::string(kAdapterChannel), part});
    for (auto& channel : own) to.push_back(std::move(channel));
  };
  add(context.exchange.up, part_of(desk.layout, roles, {Role::Shared}), trainer.up(desk.layout));
  add(context.exchange.down, part_of(desk.layout, roles, {Role::Shared, Role::Frozen}), trainer.down(desk.layout));
  return context;
}

Turn take_turn(Desk& desk, Trainer& trainer, DataSource& data, const TrainContext& context, Watch watch) {
  auto& model = desk.bench->model;
  if (watch == Watch::Inputs) model.watch_base();
  for (const auto& channel : context.exchange.down) {
    if (!channel.for_trainer || channel.keep != Keep::Latest) continue;
    Lent lent;
    Download download{channel.name, 0, true, {}};
    for (const auto& spec : channel.layout.tensors) {  // zero at the start
      const double sigma = context.plan.round > 1 && spec.dtype == DType::f32 ? 1e-3 : 0;
      download.tensors.emplace_back(spec.name, lent.add(random_tensor(spec.shape, context.plan.round, sigma)));
    }
    trainer.receive(model, *desk.adapter, download);
    download.tensors.clear();
    if (watch == Watch::Inputs) lent.check(fmt::format("what came of channel '{}'", channel.name));
  }
  trainer.derive(model, *desk.adapter);
  data.shuffle(context.seed);
  Turn turn{trainer.train(model, *desk.adapter, data, context), {}};
  for (const auto& channel : trainer.up(desk.layout)) {
    auto tensors = trainer.outgoing(channel.name);
    for (auto& tensor : tensors) tensor = tensor.detach().clone();
    if (channel.carry == Carry::Mean && !context.exchange.up.empty()) trainer.sent(channel.name, tensors);
    turn.outgoing.emplace_back(channel, std::move(tensors));
  }
  if (watch == Watch::Inputs) model.check_base("it");
  return turn;
}

Value brief(const Subject& subject, Value params) {
  constexpr std::int64_t kSteps = 3;
  for (std::uint32_t i = 0; i < subject.component.param_count; ++i) {
    const auto& param = *subject.component.params[i];
    if (std::string_view(param.name) != "steps" || param.type != HANSA_INT) continue;
    const auto* value = params.find("steps");
    if (value && value->raw().integer > kSteps && !((param.flags & HANSA_PARAM_MIN) && param.minimum > kSteps))
      params.set("steps", Value::integer(kSteps));
  }
  return params;
}

Workplace workplace_for(const Subject& subject) {
  const auto bench = std::make_shared<Bench>(subject);
  std::string why;
  bool fitted = false;
  for (const auto* adapter : candidates(subject, "adapter")) {
    try {
      Desk(subject, bench, *adapter);
    } catch (const std::exception&) {
      if (why.empty()) why = fmt::format("{} fails: {}", adapter->id, plain_message());
      continue;  // not for this model
    }
    fitted = true;
    using enum Company;
    for (const auto& [company, task] : {std::pair(Federated, Task::Language), std::pair(Alone, Task::Language),
                                        std::pair(Federated, Task::Preference), std::pair(Alone, Task::Preference)}) {
      try {
        Desk desk(subject, bench, *adapter, task);
        const auto trainer = subject.make_with<Trainer>(brief(subject, subject.params));
        auto data = desk.lessons();
        take_turn(desk, *trainer, data, context_of(desk, *trainer, desk.all_shared(), company, {}));
        return {bench, adapter, company, task};
      } catch (const std::exception&) {
        if (why.empty()) why = fmt::format("with adapter {}: {}", adapter->id, plain_message());
      }
    }
  }
  if (!fitted) no_partner("adapter", why.empty() ? "none is loaded" : why);
  throw Broken("it trains with no adapter, neither in a federation under a plain mean nor alone; " + why, subject.seed,
               fmt::format("a round on {} documents, and on pairs of answers", kLessons));
}

}  // namespace hansa::conformance
