// `hansa data inspect`: the silos of a pipeline as its data source gives them, or files as words.
#include <algorithm>
#include <ostream>

#include <fmt/format.h>
#include <hansa/data_source.hpp>
#include <hf/tokenizer.hpp>
#include <nlohmann/json.hpp>

#include "base/digest.hpp"
#include "base/log.hpp"
#include "data/format.hpp"
#include "data/records.hpp"
#include "data/statistics.hpp"
#include "data_command.hpp"
#include "opened.hpp"
#include "pipeline/stages.hpp"
#include "report/plot.hpp"
#include "report/table.hpp"

namespace hansa {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using data::SiloStatistics;
constexpr std::int64_t kRows = 16;

struct Inspected {
  std::vector<SiloStatistics> silos;
  std::string unit;  // "tokens", "words"
};

// ---- a pipeline: what the model will see

void count_row(const Batch& batch, std::int64_t row, SiloStatistics& silo) {
  const auto width = batch.tokens.size(1);
  const auto* tokens = batch.tokens.const_data_ptr<std::int64_t>() + row * width;
  const auto* segments =
      batch.segments.defined() ? batch.segments.const_data_ptr<std::int64_t>() + row * width : nullptr;
  const auto* labels =
      batch.task == Task::Classification ? nullptr : batch.labels.const_data_ptr<std::int64_t>() + row * width;
  auto end = width;  // where no segments say it, padding is what no label follows
  while (!segments && labels && end > 0 && labels[end - 1] == -100) --end;
  std::uint32_t length = 0;
  for (std::int64_t i = 0; i < end; ++i) {
    if (segments && segments[i] < 0) continue;
    ++silo.counts[static_cast<std::uint64_t>(labels && labels[i] >= 0 ? labels[i] : tokens[i])];
    ++silo.units;
    ++length;
    const bool last = i + 1 == end || (segments && segments[i + 1] != segments[i]);
    if (last) silo.lengths.push_back(std::exchange(length, 0));
  }
  if (batch.task == Task::Classification)
    ++silo.labels[std::to_string(batch.labels.const_data_ptr<std::int64_t>()[row])];
}

SiloStatistics silo_through(const Instance<DataSource>& source, const config::NodeSpec& node,
                            const Tokenizer* tokenizer) {
  SiloStatistics silo{.name = node.name};
  guard(source, {.doing = "read"}, [&](DataSource& data) {
    data.open(node.data, tokenizer, std::int64_t{1} << 20);
    silo.records = data.examples();
    data.rewind();
    while (const auto batch = data.next(kRows)) {
      silo.bytes += static_cast<std::uint64_t>(batch->bytes);
      for (std::int64_t row = 0; row < batch->tokens.size(0); ++row) count_row(*batch, row, silo);
    }
  });
  return silo;
}

Inspected inspect_pipeline(const OpenedPipeline& opened) {
  const Log log;
  const HostServices services{&log, nullptr, static_cast<std::uint64_t>(opened.spec.run.seed), {}};
  std::unique_ptr<Tokenizer> tokenizer;
  if (hf::has_tokenizer(opened.spec.model_host.path))
    tokenizer = std::make_unique<hf::HfTokenizer>(opened.spec.model_host.path);
  Inspected found{.unit = "tokens"};
  for (const auto& node : opened.spec.nodes) {
    const auto source =
        pipeline::make<DataSource>(opened.spec.data, *opened.registry, services);  // its memory goes again
    found.silos.push_back(silo_through(source, node, tokenizer.get()));
  }
  return found;
}

// ---- files: words

void count_words(std::string_view text, SiloStatistics& silo, std::uint32_t& length) {
  constexpr std::string_view kSpace = " \t\r\n";
  for (std::size_t at = text.find_first_not_of(kSpace); at != std::string_view::npos;) {
    const auto end = std::min(text.find_first_of(kSpace, at), text.size());
    ++silo.counts[xxh3_64(text.substr(at, end - at))];
    ++silo.units;
    ++length;
    at = text.find_first_not_of(kSpace, end);
  }
}
void count_words_in(const nlohmann::json& value, SiloStatistics& silo, std::uint32_t& length) {
  if (value.is_string()) {
    silo.bytes += value.get_ref<const std::string&>().size();
    count_words(value.get_ref<const std::string&>(), silo, length);
  }
  if (value.is_structured())
    for (const auto& inner : value) count_words_in(inner, silo, length);
}

void count_line(const data::Record& record, const InspectOptions& options, SiloStatistics& silo,
                std::uint32_t& length) {
  const auto object = nlohmann::json::parse(record.text, nullptr, false);
  if (object.is_discarded()) throw data::BadRecord("this is no JSON");
  count_words_in(object, silo, length);
  if (options.field.empty()) return;
  const auto label = data::field_text(record.text, options.field);
  ++silo.labels[label ? *label : "(none)"];
}

bool is_lines(const fs::path& silo) {
  if (!fs::is_directory(silo)) return silo.extension() == ".jsonl";
  return std::ranges::any_of(fs::directory_iterator(silo),
                             [](const auto& entry) { return entry.path().extension() == ".jsonl"; });
}

SiloStatistics silo_in_words(const fs::path& path, const InspectOptions& options) {
  SiloStatistics silo{.name = path.filename().empty() ? path.parent_path().filename().string() : path.stem().string()};
  const bool lines = is_lines(path);
  for (const auto& file : data::files_of(path, lines ? ".jsonl" : ".txt")) {
    const MappedFile mapped(file);
    const std::string_view text(reinterpret_cast<const char*>(mapped.bytes().data()), mapped.bytes().size());
    const data::EachRecord each = [&](const data::Record& record) {
      std::uint32_t length = 0;
      try {
        const auto flaw = data::find_flaw(record.raw);
        if (!flaw.reason.empty()) throw data::BadRecord(flaw.reason);
        if (lines) {
          count_line(record, options, silo, length);
        } else {
          silo.bytes += record.text.size();
          count_words(record.text, silo, length);
        }
      } catch (const data::BadRecord& bad) {
        throw Error(fmt::format("{}: {}", data::place_of(file, text, record.offset), bad.what()));
      }
      ++silo.records;
      silo.lengths.push_back(length);
    };
    lines ? data::cut_lines(text, each) : data::cut_documents(text, options.separator, each);
  }
  return silo;
}

// A folder of which each file or folder is a silo, as a simulation has them; or one silo.
std::vector<fs::path> silos_in(const std::vector<fs::path>& paths) {
  if (paths.size() != 1 || !fs::is_directory(paths[0])) return paths;
  std::vector<fs::path> inside;
  for (const auto& entry : fs::directory_iterator(paths[0]))
    if (entry.is_directory() || entry.path().extension() == ".txt" || entry.path().extension() == ".jsonl")
      inside.push_back(entry.path());
  std::ranges::sort(inside);
  return inside.size() > 1 ? inside : paths;
}

// ---- shown

struct Skew {
  std::vector<double> words, labels;
};

Json as_json(const Inspected& found, const Skew& skew) {
  Json silos = Json::array();
  std::vector<double> sizes;
  for (std::size_t i = 0; i < found.silos.size(); ++i) {
    const auto& silo = found.silos[i];
    sizes.push_back(static_cast<double>(silo.units));
    silos.push_back({{"name", silo.name},
                     {"records", silo.records},
                     {"bytes", silo.bytes},
                     {found.unit, silo.units},
                     {"length",
                      {{"p50", data::quantile(silo.lengths, 0.5)},
                       {"p95", data::quantile(silo.lengths, 0.95)},
                       {"longest", data::quantile(silo.lengths, 1)}}},
                     {"divergence", skew.words[i]}});
    if (!silo.labels.empty()) {
      silos.back()["labels"] = silo.labels;
      silos.back()["label_distance"] = skew.labels[i];
    }
  }
  return {{"unit", found.unit}, {"silos", silos}, {"size_gini", data::gini(sizes)}};
}

std::string as_text(const Inspected& found, const Skew& skew) {
  std::uint64_t total = 0;
  std::vector<double> sizes;
  bool labelled = false;
  for (const auto& silo : found.silos) {
    total += silo.units;
    sizes.push_back(static_cast<double>(silo.units));
    labelled = labelled || !silo.labels.empty();
  }
  std::vector<Table::Column> columns{{"silo", Table::Align::Left},
                                     {"records"},
                                     {"bytes"},
                                     {found.unit},
                                     {"share"},
                                     {"50 %"},
                                     {"95 %"},
                                     {"longest"},
                                     {"skew"}};
  if (labelled) columns.push_back({"label skew"});
  Table table(columns);
  for (std::size_t i = 0; i < found.silos.size(); ++i) {
    const auto& silo = found.silos[i];
    std::vector<std::string> row{
        silo.name,
        std::to_string(silo.records),
        std::to_string(silo.bytes),
        std::to_string(silo.units),
        fmt::format("{:.1f} %", total == 0 ? 0 : 100 * static_cast<double>(silo.units) / static_cast<double>(total)),
        std::to_string(data::quantile(silo.lengths, 0.5)),
        std::to_string(data::quantile(silo.lengths, 0.95)),
        std::to_string(data::quantile(silo.lengths, 1)),
        fmt::format("{:.3f}", skew.words[i])};
    if (labelled) row.push_back(fmt::format("{:.3f}", skew.labels[i]));
    table.row(std::move(row));
  }
  return table.text() + fmt::format(
                            "Lengths are in {0}. Skew: Jensen-Shannon divergence, in bits, between a silo's {0} and "
                            "those of all others "
                            "(0 alike, 1 nothing in common).{1} Sizes: Gini {2:.3f}.\n",
                            found.unit,
                            labelled ? " Label skew: total variation distance to the labels of all (0 to 1)." : "",
                            data::gini(sizes));
}

PlotSeries length_curve(const SiloStatistics& silo, std::size_t colour) {
  constexpr int kSteps = 50;
  PlotSeries series{.name = silo.name, .colour = colour};
  auto lengths = silo.lengths;
  std::ranges::sort(lengths);
  for (int step = 0; step <= kSteps && !lengths.empty(); ++step) {
    const auto at = static_cast<std::size_t>(step) * (lengths.size() - 1) / kSteps;
    series.points.emplace_back(lengths[at], 100.0 * static_cast<double>(step) / kSteps);
  }
  return series;
}

PlotPage as_plot(const Inspected& found, const Skew& skew) {
  BarPlot sizes{"Sizes", found.unit, {}}, words{"Skew of " + found.unit, "bits", {}},
      labels{"Skew of labels", "distance", {}};
  LinePlot lengths{"Lengths", found.unit, "% of records up to this length", {}, {{0, 100}}};
  for (std::size_t i = 0; i < found.silos.size(); ++i) {
    const auto& silo = found.silos[i];
    sizes.bars.emplace_back(silo.name, silo.units);
    words.bars.emplace_back(silo.name, skew.words[i]);
    if (!silo.labels.empty()) labels.bars.emplace_back(silo.name, skew.labels[i]);
    lengths.series.push_back(length_curve(silo, i));
  }
  PlotPage page{sizes, lengths, words};
  if (!labels.bars.empty()) page.push_back(labels);
  return page;
}

}  // namespace

int inspect_data(const InspectOptions& options, std::ostream& out, std::ostream& err) {
  Inspected found{.unit = "words"};
  if (options.paths.size() == 1 && options.paths[0].extension() == ".toml") {
    auto request = options.pipeline;
    request.file = options.paths[0];
    int exit_code = 0;
    const auto opened = open_pipeline(request, exit_code);
    if (!opened) return exit_code;
    found = inspect_pipeline(*opened);
  } else {
    for (const auto& path : silos_in(options.paths)) found.silos.push_back(silo_in_words(path, options));
  }
  const Skew skew{data::divergences(found.silos), data::label_distances(found.silos)};
  out << (options.json ? as_json(found, skew).dump() + "\n" : as_text(found, skew));
  if (options.plot.empty()) return 0;
  if (const auto why = draw_svg(as_plot(found, skew), options.plot)) {
    err << *why << '\n';
    return 1;
  }
  return 0;
}

}  // namespace hansa
