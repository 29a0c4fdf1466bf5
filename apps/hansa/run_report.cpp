#include "run_report.hpp"

#include <ATen/Parallel.h>
#include <unistd.h>

#include <cmath>
#include <iostream>
#include <map>
#include <numbers>
#include <thread>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/ids.hpp"
#include "checkpoint/manifest.hpp"
#include "config/quantity.hpp"
#include "coordination.hpp"
#include "coordinator/spend.hpp"
#include "coordinator_command.hpp"
#include "generate.hpp"
#include "node/worker.hpp"
#include "processes.hpp"
#include "report/node_notes.hpp"
#include "report/plot.hpp"
#include "report/progress.hpp"
#include "report/quotients.hpp"
#include "report/table.hpp"
#include "round/journal.hpp"
#include "round/ledger.hpp"
#include "round/participation.hpp"
#include "trust_options.hpp"

namespace hansa {
namespace {

struct Heldout {
  std::string name;
  std::filesystem::path data;
};
using Values =
    std::map<std::string, std::map<std::string, double>>;  // model -> silo -> a quotient (report/quotients.hpp)

struct Outcome {                           // what the report says
  std::vector<std::string> models;         // columns, in order
  std::vector<Heldout> silos;              // rows
  std::map<std::string, Values> measured;  // by the quotient's name
  std::uint64_t bytes_up = 0, bytes_down = 0;
  double seconds = 0;
  std::optional<double> epsilon;
  std::string adjacency;  // what epsilon is about: "add or remove one node"
  std::string sample_before, sample_after;
  std::map<std::string, std::uint64_t> skipped, dropped;  // records, by node
  std::vector<GivenUp> given_up;
};

bool is_private(const config::RunSpec& spec) {
  return spec.privacy.component && (spec.privacy.traits.flags & HANSA_TRAIT_CENTRAL_NOISE);
}

// Under central DP what a node would measure on its own text is withheld (rule 19): only sets that belong to no node count.
std::vector<Heldout> heldout_of(const config::RunSpec& spec) {
  std::vector<Heldout> all;
  for (const auto& node : spec.nodes) {
    if (node.heldout && !is_private(spec)) all.push_back({node.name, *node.heldout});
  }
  for (const auto& set : spec.evaluation.sets) all.push_back({set.name, set.data});
  return all;
}

// The loss, whatever it is per.
bool is_loss(const std::string& quotient) { return quotient.starts_with("nats_per_"); }

double average(const std::map<std::string, double>& values) {
  double sum = 0;
  for (const auto& [silo, value] : values) sum += value;
  return sum / static_cast<double>(values.size());
}

class Reporter {
 public:
  Reporter(const OpenedPipeline& opened, std::filesystem::path run_dir,
           const std::vector<std::filesystem::path>& plugin_path, const std::atomic<bool>& stop)
      : opened_(opened), run_dir_(std::move(run_dir)), plugin_path_(plugin_path), stop_(stop) {
    outcome_.silos = heldout_of(opened_.spec);
  }

  int run() {
    const auto directory = RunDirectory(run_dir_, RunDirectory::Open::Resume);
    final_ = coordinator::standing_of(directory, directory.versions().back());
    down_ = down_channels(opened_);
    if (opened_.spec.report.local_only && !train_alone()) return kExitStopped;

    auto spec = opened_.spec;
    spec.train.threads =
        std::max(1u, std::thread::hardware_concurrency());  // nothing here must be bit-equal to the nodes' work
    CallWatch watch(node_limits(spec));
    const HostServices services{&log_, &stop_, static_cast<std::uint64_t>(spec.run.seed), {}, &watch};
    node::Worker worker(spec, *opened_.registry, services);
    worker.load(final_, down_);
    worker.export_adapter(directory.adapter());
    if (spec.evaluator.component && !outcome_.silos.empty() && !measure(worker)) return kExitStopped;
    sample(worker);
    read_totals(directory);
    write(directory);
    return 0;
  }

 private:
  std::filesystem::path alone_of(const std::string& node) const { return run_dir_ / "local" / (node + ".hansa"); }

  // One process per silo, as many at a time as there are cores.
  bool train_alone() {
    std::filesystem::create_directories(run_dir_ / "local");
    std::filesystem::create_directories(run_dir_ / "logs");  // a simulation has none of its own
    std::vector<std::string> waiting;
    for (const auto& node : opened_.spec.nodes) {
      if (!std::filesystem::exists(alone_of(node.name))) waiting.push_back(node.name);
    }
    ProgressBar bar(clock_, "local-only baselines", opened_.spec.nodes.size(), "silos", STDERR_FILENO,
                    output_of(STDERR_FILENO));
    auto done = opened_.spec.nodes.size() - waiting.size();
    std::map<std::string, ChildProcess> running;
    while (!waiting.empty() || !running.empty()) {
      while (!waiting.empty() && running.size() < std::max(1u, std::thread::hardware_concurrency())) {
        const auto name = waiting.back();
        waiting.pop_back();
        std::vector<std::string> arguments{this_program().string(),
                                           "train-alone",
                                           (run_dir_ / "config.toml").string(),
                                           "--node",
                                           name,
                                           "--journal",
                                           (run_dir_ / "journal").string(),
                                           "--out",
                                           alone_of(name).string()};
        for (auto& argument : die_with_this_process()) arguments.push_back(std::move(argument));
        for (const auto& path : plugin_path_) arguments.insert(arguments.end(), {"--plugin-path", path.string()});
        for (auto& argument : trust_arguments(opened_.spec.plugins)) arguments.push_back(std::move(argument));
        running.emplace(name, ChildProcess(std::move(arguments), run_dir_ / "logs" / ("local-" + name + ".log")));
      }
      bar.update(done);
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      for (auto it = running.begin(); it != running.end();) {
        const auto code = it->second.poll();
        if (!code) {
          ++it;
          continue;
        }
        if (*code != 0 && !stop_) {
          throw Error(fmt::format("the local-only baseline of '{}' failed; its log is {}", it->first,
                                  (run_dir_ / "logs" / ("local-" + it->first + ".log")).string()));
        }
        ++done;
        it = running.erase(it);
      }
      if (stop_) return false;
    }
    bar.update(done);
    bar.finish();
    return true;
  }

  bool measure(node::Worker& worker) {
    outcome_.models = {"base"};
    if (opened_.spec.report.local_only) {
      for (const auto& node : opened_.spec.nodes) outcome_.models.push_back("local-" + node.name);
    }
    outcome_.models.push_back("federated");
    ProgressBar bar(clock_, "measuring", outcome_.models.size() * outcome_.silos.size(), "evaluations", STDERR_FILENO,
                    output_of(STDERR_FILENO));
    std::uint64_t done = 0;
    for (const auto& model : outcome_.models) {
      if (model == "federated")
        worker.load(final_, down_);
      else if (model != "base")
        worker.load_saved(alone_of(model.substr(6)));
      for (const auto& silo : outcome_.silos) {
        if (stop_) return false;
        Sums sums;
        add(sums, model == "base" ? worker.evaluate_base(silo.data) : worker.evaluate(silo.data));
        for (const auto& [name, value] : quotients(sums)) outcome_.measured[name][model][silo.name] = value;
        bar.update(++done);
      }
    }
    bar.finish();
    return true;
  }

  void sample(node::Worker& worker) {
    const auto& report = opened_.spec.report;
    if (report.sample_prompt.empty() || !worker.tokenizer()) return;
    GenerateOptions options;
    options.max_tokens = report.sample_tokens;
    options.temperature = 0.7;  // a small model at 1 shows mostly its tail
    options.seed = static_cast<std::uint64_t>(opened_.spec.run.seed);
    worker.enable_adapter(false);
    outcome_.sample_before = generate(worker.model(), *worker.tokenizer(), report.sample_prompt, options).text;
    worker.enable_adapter(true);
    worker.load(final_, down_);
    outcome_.sample_after = generate(worker.model(), *worker.tokenizer(), report.sample_prompt, options).text;
  }

  void read_totals(const RunDirectory& directory) {
    outcome_.skipped = counts_of(directory.metrics(), "records_skipped");
    outcome_.dropped = counts_of(directory.metrics(), "records_dropped");
    outcome_.given_up = given_up(directory.events());
    const auto loaded = load_manifest(directory.manifest());
    if (!loaded) return;
    const auto note = [&](const char* key) {
      const auto found = loaded->manifest.notes.find(key);
      return found == loaded->manifest.notes.end() ? std::string("0") : found->second;
    };
    outcome_.bytes_up = std::stoull(note("bytes_up"));
    outcome_.bytes_down = std::stoull(note("bytes_down"));
    outcome_.seconds = std::stod(note("seconds"));
    if (!is_private(opened_.spec)) return;
    const Ledger ledger(directory.ledger());
    outcome_.epsilon = coordinator::epsilon_of(ledger.events(), opened_.spec.privacy_host.delta);
    if (!ledger.events().empty()) outcome_.adjacency = ledger.events().back().adjacency;
  }

  // A silo that gave nothing to measure has no row.
  std::string table_of(const std::string& quotient, const Values& values) const {
    const bool per_byte = quotient == "nats_per_byte";
    std::vector<Table::Column> columns{{is_loss(quotient) ? "held-out loss" : "held-out", Table::Align::Left}};
    for (const auto& model : outcome_.models) columns.push_back({model});
    Table table(std::move(columns));
    const auto cell = [&](double value) {
      return per_byte ? fmt::format("{:.3f} ({:.3f})", value, value / std::numbers::ln2) : fmt::format("{:.4f}", value);
    };
    for (const auto& silo : outcome_.silos) {
      if (!values.begin()->second.contains(silo.name)) continue;
      std::vector<std::string> row{silo.name};
      for (const auto& model : outcome_.models) row.push_back(cell(values.at(model).at(silo.name)));
      table.row(std::move(row));
    }
    table.rule();
    std::vector<std::string> row{"average"};
    for (const auto& model : outcome_.models) row.push_back(cell(average(values.at(model))));
    table.row(std::move(row));
    if (per_byte) return table.text() + "nats per byte (bits per byte), lower is better\n";
    auto words = quotient;
    std::ranges::replace(words, '_', ' ');
    return table.text() + words + (is_loss(quotient) ? ", lower is better\n" : "\n");
  }

  std::string privacy_text() const {
    const auto& host = opened_.spec.privacy_host;
    if (outcome_.epsilon) {
      return fmt::format("node-level central DP: epsilon {:.3f} at delta {:g} for {} nodes (adjacency: {})",
                         *outcome_.epsilon, host.delta, opened_.spec.nodes.size(), outcome_.adjacency);
    }
    if (opened_.spec.privacy.component) {
      return fmt::format(
          "no guarantee: '{}' bounds each silo's influence and adds no noise ({} silos are too few for a silo-level "
          "guarantee to mean anything)",
          opened_.spec.privacy.use, opened_.spec.nodes.size());
    }
    return "none";
  }

  // Silos that could not be used as a whole, nodes that could not do their part.
  std::string trouble_text() const {
    constexpr std::size_t kMost = 5;  // a run of many rounds may have many; events.jsonl has them all
    std::string out;
    for (const auto& [node, count] : outcome_.skipped)
      out += fmt::format("left out: {} records of {} that could not be used (its log names the first)\n", count, node);
    for (const auto& [node, count] : outcome_.dropped)
      out += fmt::format("left out: {} records of {} with nothing to learn in a row's length\n", count, node);
    for (std::size_t i = 0; i < std::min(kMost, outcome_.given_up.size()); ++i) {
      const auto& one = outcome_.given_up[i];
      out += fmt::format("given up: {} in round {}: {}\n", one.node, one.round, one.reason);
    }
    if (outcome_.given_up.size() > kMost)
      out += fmt::format("given up: {} more, see events.jsonl\n", outcome_.given_up.size() - kMost);
    return out;
  }

  std::string text() const {
    std::string out;
    for (const auto& [quotient, values] : outcome_.measured) out += "\n" + table_of(quotient, values);
    out += fmt::format("\nsent:     up {}, down {} in all\ntime:     {} in {} rounds\nprivacy:  {}\n",
                       config::bytes_text(static_cast<double>(outcome_.bytes_up)),
                       config::bytes_text(static_cast<double>(outcome_.bytes_down)), duration_text(outcome_.seconds),
                       opened_.spec.run.rounds, privacy_text());
    out += trouble_text();
    if (!outcome_.sample_after.empty()) {
      const auto& prompt = opened_.spec.report.sample_prompt;
      out += fmt::format("\nsample before: {}|{}\nsample after:  {}|{}\n", prompt, outcome_.sample_before, prompt,
                         outcome_.sample_after);
    }
    return out;
  }

  void write(const RunDirectory& directory) {
    // "loss" is what `nats` are per; what else an evaluator sums up stands under "measured".
    auto loss = nlohmann::ordered_json::object(), measured = loss;
    for (const auto& [quotient, values] : outcome_.measured)
      for (const auto& model : outcome_.models)
        for (const auto& [silo, value] : values.at(model))
          (is_loss(quotient) ? loss[model] : measured[quotient][model])[silo] = value;
    auto given_up = nlohmann::ordered_json::array();
    for (const auto& one : outcome_.given_up)
      given_up.push_back({{"node", one.node}, {"round", one.round}, {"reason", one.reason}});
    const nlohmann::ordered_json summary{
        {"name", opened_.spec.run.name},
        {"rounds", opened_.spec.run.rounds},
        {"epochs_released", directory.versions().back()},
        {"loss", loss},
        {"measured", measured},
        {"records_skipped", outcome_.skipped},
        {"records_dropped", outcome_.dropped},
        {"given_up", given_up},
        {"bytes_up", outcome_.bytes_up},
        {"bytes_down", outcome_.bytes_down},
        {"seconds", outcome_.seconds},
        {"epsilon", outcome_.epsilon ? nlohmann::ordered_json(*outcome_.epsilon) : nlohmann::ordered_json()},
        {"delta", opened_.spec.privacy_host.delta},
        {"privacy", privacy_text()}};
    write_file_atomically(directory.summary(), summary.dump(2) + "\n", Durability::Process);
    const auto report = text();
    write_file_atomically(run_dir_ / "report.txt", report, Durability::Process);
    std::cout << report;
    plot();
    std::cout << fmt::format("\nadapter:  {}\nsummary:  {}\n", directory.adapter().string(),
                             directory.summary().string());
  }

  // Federated loss per silo over the rounds, with the base and each silo's own local-only adapter as lines across.
  void plot() const {
    const auto found = std::ranges::find_if(outcome_.measured, [](const auto& one) { return is_loss(one.first); });
    if (found == outcome_.measured.end()) return;
    const auto& [quotient, losses] = *found;
    auto curves = curves_of(run_dir_ / "metrics.csv", "heldout_" + quotient);
    LinePlot picture;
    picture.title = fmt::format("{}: held-out loss (dashed: base, dotted: the silo alone)", opened_.spec.run.name);
    picture.x_label = "round";
    picture.y_label = quotient;
    std::ranges::replace(picture.y_label, '_', ' ');
    std::size_t colour = 0;
    for (const auto& silo : outcome_.silos) {
      if (!losses.at("base").contains(silo.name)) continue;
      const double base = losses.at("base").at(silo.name);
      auto points = curves[silo.name];
      points.insert(points.begin(), {0, base});
      const auto last = static_cast<double>(opened_.spec.run.rounds);
      picture.series.push_back({silo.name, points, PlotSeries::Line::Solid, colour});
      picture.series.push_back({"", {{0, base}, {last, base}}, PlotSeries::Line::Dashed, colour});
      const auto alone = losses.find("local-" + silo.name);
      if (alone != losses.end()) {
        const double loss = alone->second.at(silo.name);
        picture.series.push_back({"", {{0, loss}, {last, loss}}, PlotSeries::Line::Dotted, colour});
      }
      ++colour;
    }
    const auto svg = run_dir_ / "loss.svg";
    if (const auto why = draw_svg(picture, svg))
      log_.warning(fmt::format("no plot: {}", *why));
    else
      std::cout << fmt::format("\nplot:     {}\n", svg.string());
  }

  const OpenedPipeline& opened_;
  std::filesystem::path run_dir_;
  const std::vector<std::filesystem::path>& plugin_path_;
  const std::atomic<bool>& stop_;
  SteadyClock clock_;
  Log log_;
  fold::Standing final_;
  std::vector<Channel> down_;
  Outcome outcome_;
};

}  // namespace

int report_run(const OpenedPipeline& opened, const std::filesystem::path& run_dir,
               const std::vector<std::filesystem::path>& plugin_path, const std::atomic<bool>& stop) {
  return Reporter(opened, run_dir, plugin_path, stop).run();
}

int train_alone_command(const PipelineRequest& request, const std::string& name, const std::filesystem::path& journal,
                        const std::filesystem::path& out) {
  int exit_code = 0;
  const auto opened = open_pipeline(request, exit_code, Warnings::Hidden);
  if (!opened) return exit_code;
  const Log log;
  const auto& nodes = opened->spec.nodes;
  const auto found = std::find_if(nodes.begin(), nodes.end(), [&](const auto& node) { return node.name == name; });
  if (found == nodes.end()) throw Error(fmt::format("{} names no node '{}'", request.file.string(), name));
  const auto taken = rounds_of(node_id(name), Journal(journal, Durability::Process).take_records());
  // Who was drawn is nobody's business under privacy.
  if (!is_private(opened->spec))
    log.info(fmt::format("{} trains alone in the {} of {} rounds that it was part of", name, taken.size(),
                         opened->spec.run.rounds));
  CallWatch watch(node_limits(opened->spec));
  node::Worker worker(opened->spec, *opened->registry,
                      {&log, nullptr, static_cast<std::uint64_t>(opened->spec.run.seed), {}, &watch});
  worker.train_alone({found->name, found->data, found->heldout, out.parent_path() / name}, taken);
  worker.save(out, Durability::Process);
  return 0;
}

}  // namespace hansa
