#include "privacy_command.hpp"

#include <cmath>
#include <ostream>

#include <fmt/format.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "dp/accountant.hpp"

namespace hansa {
namespace {

nlohmann::json number_or_null(double value) {  // JSON has no infinity
  return std::isfinite(value) ? nlohmann::json(value) : nlohmann::json();
}

}  // namespace

PrivacyCommand::PrivacyCommand(CLI::App& program) {
  auto* group =
      program.add_subcommand("privacy", "What differential privacy costs: epsilon of a plan, noise for an epsilon");
  group->require_subcommand(1);
  auto* epsilon = group->add_subcommand(
      "epsilon", "Epsilon of N releases with Gaussian noise (Renyi accounting, add/remove one node)");
  epsilon->add_option("--noise-multiplier", noise_multiplier_, "Standard deviation of the noise over the sensitivity")
      ->required();
  auto* noise = group->add_subcommand("noise", "The smallest noise multiplier that keeps N releases within an epsilon");
  noise->add_option("--epsilon", target_, "Epsilon to keep within")->required();
  for (auto* command : {epsilon, noise}) {
    command
        ->add_option("--sampling-rate", sampling_rate_,
                     "Probability that a node is drawn (Poisson); 1 without sampling")
        ->required();
    command->add_option("--steps", steps_, "Number of releases: rounds")
        ->required()
        ->check(CLI::NonNegativeNumber);  // CLI11 wraps -3 around without a word
    command->add_option("--delta", delta_, "Delta of the guarantee; well below one over the number of nodes")
        ->required();
    command->add_flag("--json", json_, "One JSON object instead of the value alone");
  }
  epsilon_ = epsilon;
  noise_ = noise;
}

bool PrivacyCommand::chosen() const { return epsilon_->parsed() || noise_->parsed(); }

int PrivacyCommand::run(std::ostream& out) const {
  epsilon_->parsed() ? run_epsilon(out) : run_noise(out);
  return 0;
}

void PrivacyCommand::run_epsilon(std::ostream& out) const {
  const DpEvent event{"gaussian", noise_multiplier_, sampling_rate_, steps_};
  const auto spend = dp::spend({&event, 1}, delta_);
  if (!json_) {
    out << fmt::format("{}\n", spend.epsilon);
    return;
  }
  const nlohmann::ordered_json report{{"epsilon", number_or_null(spend.epsilon)},
                                      {"delta", delta_},
                                      {"noise_multiplier", noise_multiplier_},
                                      {"sampling_rate", sampling_rate_},
                                      {"steps", steps_},
                                      {"accountant", "rdp"},
                                      {"order", spend.order},
                                      {"adjacency", name_of(event.adjacency)}};
  out << report.dump() << '\n';
}

void PrivacyCommand::run_noise(std::ostream& out) const {
  const double multiplier = dp::noise_multiplier_for(target_, sampling_rate_, steps_, delta_);
  if (!json_) {
    out << fmt::format("{}\n", multiplier);
    return;
  }
  const DpEvent event{"gaussian", multiplier, sampling_rate_, steps_};
  const nlohmann::ordered_json report{{"noise_multiplier", multiplier},
                                      {"epsilon", number_or_null(dp::epsilon({&event, 1}, delta_))},
                                      {"delta", delta_},
                                      {"sampling_rate", sampling_rate_},
                                      {"steps", steps_},
                                      {"accountant", "rdp"},
                                      {"adjacency", name_of(event.adjacency)}};
  out << report.dump() << '\n';
}

}  // namespace hansa
