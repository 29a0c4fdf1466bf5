#include "coordination.hpp"

#include <unistd.h>

namespace hansa {

Coordination::Coordination(CoordinationSetup setup)
    : setup_(std::move(setup)),
      directory_(setup_.run_dir, setup_.how),
      digests_(digests_of(setup_.opened.spec)),
      stages_(setup_.opened.spec, *setup_.opened.registry,
              {&log_, &setup_.stop, static_cast<std::uint64_t>(setup_.opened.spec.run.seed), {}}) {
  const auto& opened = setup_.opened;
  if (setup_.how == RunDirectory::Open::Create) describe_run(directory_, opened);
  if (directory_.versions().empty()) setup_.write_initial(directory_.version(0));
  coordinator::EngineSetup engine{opened.spec,
                                  stages_,
                                  opened.shape.trainable,
                                  directory_,
                                  digests_.base,
                                  digests_.tokenizer,
                                  shared_plugins(opened.spec, *opened.registry),
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

coordinator::Result Coordination::run() {
  auto result = engine_->run(setup_.stop);
  if (bar_ && result.ending == coordinator::Ending::Finished) bar_->finish();
  bar_.reset();
  return result;
}

}  // namespace hansa
