#include "coordination.hpp"

#include <unistd.h>

namespace hansa {

Coordination::Coordination(CoordinationSetup setup)
    : setup_(std::move(setup)),
      directory_(setup_.run_dir, setup_.how),
      digests_(digests_of(setup_.opened.spec)),
      watch_({setup_.opened.spec.run.call_limit_seconds, setup_.opened.spec.run.call_grace_seconds}),
      stages_(setup_.opened.spec, *setup_.opened.registry,
              {&log_, &setup_.stop, static_cast<std::uint64_t>(setup_.opened.spec.run.seed), {}, &watch_}) {
  const auto& opened = setup_.opened;
  if (setup_.how == RunDirectory::Open::Create) describe_run(directory_, opened);
  if (directory_.versions().empty()) write_first_versions();
  coordinator::EngineSetup engine{opened.spec,
                                  stages_,
                                  opened.shape.layouts,
                                  directory_,
                                  digests_.base,
                                  digests_.tokenizer,
                                  shared_plugins(opened.spec, *opened.registry),
                                  setup_.changed,
                                  clock_,
                                  log_,
                                  setup_.own_evaluation,
                                  {}};
  engine.progress = [this](std::string_view stage, std::uint64_t done, std::uint64_t total, std::string_view detail) {
    if (!bar_)
      bar_ = std::make_unique<ProgressBar>(clock_, std::string(stage), total, "rounds", STDERR_FILENO,
                                           output_of(STDERR_FILENO));
    bar_->update(done, detail);
  };
  engine_ = std::make_unique<coordinator::Engine>(std::move(engine));
}

Coordination::~Coordination() = default;

// That of the pipeline's own view last: while it is missing, a restart makes all of them again.
void Coordination::write_first_versions() {
  const auto views = pipeline::views_of(stages_, setup_.opened.shape.layouts);
  for (auto view = views.rbegin(); view != views.rend(); ++view) {
    NodeFacts node;
    node.rank = view->rank;
    const auto exchange = pipeline::exchange_for(stages_, view->trainable, first_plan(), node);
    setup_.write_initial(directory_.version(0, view->name), view->rank, exchange.down);
  }
}

CallWatch::Limits node_limits(const config::RunSpec& spec) {
  return {spec.run.node_call_limit_seconds, spec.run.node_call_grace_seconds, CallWatch::Limits::Since::Progress};
}

RoundPlan first_plan() {
  RoundPlan plan;
  plan.round = 1;
  return plan;
}

namespace {

Exchange exchange_at(const OpenedPipeline& opened, double rank) {
  NodeFacts node;
  node.rank = rank;
  const pipeline::Stages stages(opened.spec, *opened.registry,
                                {nullptr, nullptr, static_cast<std::uint64_t>(opened.spec.run.seed), {}});
  return pipeline::exchange_for(stages, opened.shape.layouts.at(rank), first_plan(), node);
}

}  // namespace

std::vector<Channel> down_channels(const OpenedPipeline& opened, double rank) { return exchange_at(opened, rank).down; }
std::string view_of(const OpenedPipeline& opened, double rank) { return exchange_at(opened, rank).view; }
bool has_personal_part(const OpenedPipeline& opened, double rank) {
  const auto roles = exchange_at(opened, rank).roles;
  return std::find(roles.begin(), roles.end(), Role::Personal) != roles.end();
}

coordinator::Result Coordination::run() {
  auto result = engine_->run(setup_.stop);
  if (bar_ && result.ending == coordinator::Ending::Finished) bar_->finish();
  bar_.reset();
  return result;
}

}  // namespace hansa
