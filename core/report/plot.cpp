#include "report/plot.hpp"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstring>

#include <fmt/format.h>

#include "base/file.hpp"

namespace hansa {
namespace {

// Okabe and Ito's palette, which stays apart for colour-blind readers, with grey for its yellow (too faint on white).
constexpr std::array kColours{"#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#808080"};
constexpr std::size_t kManyPoints = 60;  // beyond it, marks would hide the line
constexpr std::size_t kManyBars = 40;    // beyond it, names would hide each other

std::string in_single_quotes(std::string_view text) {  // gnuplot's single quotes: nothing inside is interpreted
  std::string result = "'";
  for (const char c : text) {
    if (static_cast<unsigned char>(c) < ' ') continue;
    result += c;
    if (c == '\'') result += c;
  }
  return result + "'";
}

std::string style_of(const PlotSeries& series) {
  const int dash = series.line == PlotSeries::Line::Solid ? 1 : series.line == PlotSeries::Line::Dashed ? 2 : 3;
  const bool marks =
      series.line == PlotSeries::Line::Solid && series.points.size() > 1 && series.points.size() <= kManyPoints;
  return fmt::format("with {} lw 2 dt {} lc rgb '{}'{}", marks ? "linespoints" : "lines", dash,
                     kColours[series.colour % kColours.size()], marks ? " pt 7 ps 0.4" : "");
}

std::pair<double, double> x_range(const LinePlot& plot) {
  double low = INFINITY, high = -INFINITY;
  for (const auto& series : plot.series) {
    for (const auto& [x, y] : series.points) {
      if (series.points.size() < 2 || !std::isfinite(x)) continue;
      low = std::min(low, x);
      high = std::max(high, x);
    }
  }
  if (low > high) return {0, 1};
  return low == high ? std::pair{low - 0.5, high + 0.5} : std::pair{low, high};
}

bool has_data(const LinePlot& plot) {
  return std::any_of(plot.series.begin(), plot.series.end(), [](const PlotSeries& series) {
    return std::any_of(series.points.begin(), series.points.end(),
                       [](const auto& point) { return std::isfinite(point.second); });
  });
}

struct Finished {
  int status = 0;  // as waitpid gives it
  std::string said;
};

bool has_data(const BarPlot& plot) { return !plot.bars.empty(); }
bool has_data(const PlotPage& page) {
  return std::ranges::any_of(
      page, [](const auto& panel) { return std::visit([](const auto& plot) { return has_data(plot); }, panel); });
}

// Runs gnuplot on `script` in `directory`, which spares us from quoting paths. An errno where it cannot be started.
Result<Finished> run_gnuplot(const std::filesystem::path& directory, std::string script) {
  using Run = Result<Finished>;
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) throw_errno("make a pipe for", "gnuplot");
  FileDescriptor out(ends[0]), in(ends[1]);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addchdir_np(&actions, directory.empty() ? "." : directory.c_str());
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, in.get(), 1);
  posix_spawn_file_actions_adddup2(&actions, in.get(), 2);
  std::string program = "gnuplot";
  char* arguments[] = {program.data(), script.data(), nullptr};
  pid_t child = 0;
  const int failed = posix_spawnp(&child, "gnuplot", &actions, nullptr, arguments, environ);
  posix_spawn_file_actions_destroy(&actions);
  if (failed == ENOENT) return Run::failure("gnuplot is not installed (apt install gnuplot-nox)");
  if (failed != 0) return Run::failure(fmt::format("gnuplot cannot be started: {}", std::strerror(failed)));
  in = FileDescriptor();
  Finished finished;
  char buffer[4096];
  for (;;) {
    const auto got = read(out.get(), buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    finished.said.append(buffer, static_cast<std::size_t>(got));
  }
  while (waitpid(child, &finished.status, 0) < 0 && errno == EINTR) continue;
  return finished;
}

std::string preamble(const std::string& svg_name, int height) {
  return fmt::format(
      "# Draw again with: gnuplot THIS_FILE\n"
      "set encoding utf8\n"
      "set terminal svg size 960,{} dynamic noenhanced font 'sans-serif,14' background rgb '#ffffff'\n"
      "set output {}\n",
      height, in_single_quotes(svg_name));
}

// `first`: number of the first data block, of which each script has its own.
std::string panel_script(const LinePlot& plot, std::size_t first) {
  const auto [low, high] = x_range(plot);
  std::string script = fmt::format(
      "set title {}\nset xlabel {}\nset ylabel {}\n"
      "set border 3 lc rgb '#606060'\nset tics nomirror\nset grid ytics lt 1 lw 1 lc rgb '#e4e4e4'\n"
      "set key outside right top Left reverse spacing 1.2\n"
      "set xrange [{}:{}]\n",
      in_single_quotes(plot.title), in_single_quotes(plot.x_label), in_single_quotes(plot.y_label), low, high);
  script += plot.y_range
                ? fmt::format("set yrange [{}:{}]\nset offsets 0, 0, 0, 0\n", plot.y_range->first, plot.y_range->second)
                : "set yrange [*:*]\nset offsets 0, 0, graph 0.04, graph 0.04\n";
  std::string lines;
  for (std::size_t i = 0; i < plot.series.size(); ++i) {
    const auto& series = plot.series[i];
    if (series.points.empty() || (series.points.size() == 1 && !std::isfinite(series.points[0].second))) continue;
    script += fmt::format("$s{} << EOD\n", first + i);
    if (series.points.size() == 1) {
      script += fmt::format("{0} {1}\n{2} {1}\n", low, series.points[0].second, high);
    } else {
      for (const auto& [x, y] : series.points) {
        script +=
            std::isfinite(x) && std::isfinite(y) ? fmt::format("{} {}\n", x, y) : std::string("\n");  // blank: a gap
      }
    }
    script += "EOD\n";
    const auto title = series.name.empty() ? std::string("notitle") : "title " + in_single_quotes(series.name);
    lines += fmt::format("{}$s{} using 1:2 {} {}", lines.empty() ? "plot " : ", \\\n     ", first + i, style_of(series),
                         title);
  }
  return script + lines + "\n";
}

std::string panel_script(const BarPlot& plot, std::size_t first) {
  std::string script = fmt::format(
      "set title {}\nset xlabel ''\nset ylabel {}\n"
      "set border 3 lc rgb '#606060'\nset tics nomirror\nset grid ytics lt 1 lw 1 lc rgb '#e4e4e4'\n"
      "unset key\nset boxwidth 0.7\nset style fill solid 0.8\nset xrange [-0.6:{}]\nset yrange [0:*]\nset offsets 0, "
      "0, graph 0.04, 0\n",
      in_single_quotes(plot.title), in_single_quotes(plot.y_label), static_cast<double>(plot.bars.size()) - 0.4);
  std::string names;
  script += fmt::format("$s{} << EOD\n", first);
  for (std::size_t i = 0; i < plot.bars.size(); ++i) {
    script += fmt::format("{} {}\n", i, plot.bars[i].second);
    if (plot.bars.size() <= kManyBars)
      names += fmt::format("{}{} {}", names.empty() ? "" : ", ", in_single_quotes(plot.bars[i].first), i);
  }
  script += "EOD\n";
  script += names.empty() ? std::string() : fmt::format("set xtics ({}) rotate by -35\n", names);
  return script +
         fmt::format("plot $s{} using 1:2 with boxes lc rgb '{}'\nset xtics autofreq norotate\nset yrange [*:*]\n",
                     first, kColours[0]);
}

}  // namespace

std::string gnuplot_script(const LinePlot& plot, const std::string& svg_name) {
  return preamble(svg_name, 560) + panel_script(plot, 0);
}

std::string gnuplot_script(const PlotPage& page, const std::string& svg_name) {
  constexpr int kPanel = 420;
  auto script = preamble(svg_name, kPanel * static_cast<int>(page.size())) +
                fmt::format("set multiplot layout {},1\n", page.size());
  std::size_t first = 0;
  for (const auto& panel : page) {
    if (!std::visit([](const auto& plot) { return has_data(plot); }, panel)) continue;
    script += std::visit([&](const auto& plot) { return panel_script(plot, first); }, panel);
    const auto* lines = std::get_if<LinePlot>(&panel);
    first += lines ? lines->series.size() : 1;
  }
  return script + "unset multiplot\n";
}

namespace {

template <class Plot>
std::optional<std::string> draw(const Plot& plot, const std::filesystem::path& svg) {
  const auto refuse = [&](std::string_view why) { return fmt::format("no plot {}: {}", svg.string(), why); };
  if (!has_data(plot)) return refuse("there is nothing to draw yet");
  auto script = svg;
  script.replace_extension(".gnuplot");
  try {
    write_file_atomically(script, gnuplot_script(plot, svg.filename().string()), Durability::Process);
    // "./": a name that starts with a dash must not look like an option.
    auto run = run_gnuplot(svg.parent_path(), "./" + script.filename().string());
    if (!run) return refuse(run.error());
    if (run.value().status == 0 && std::filesystem::exists(svg)) return std::nullopt;
    std::error_code missing_is_fine;
    std::filesystem::remove(svg, missing_is_fine);
    return refuse(fmt::format("gnuplot failed on {}: {}", script.string(), run.value().said.substr(0, 500)));
  } catch (const Error& why) {
    return refuse(why.what());
  }
}

}  // namespace

std::optional<std::string> draw_svg(const LinePlot& plot, const std::filesystem::path& svg) { return draw(plot, svg); }
std::optional<std::string> draw_svg(const PlotPage& page, const std::filesystem::path& svg) { return draw(page, svg); }

}  // namespace hansa
