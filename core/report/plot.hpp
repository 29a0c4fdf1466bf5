// Line and bar charts as SVG, drawn by gnuplot in a child process (no shell). The script, with its data inside, stays beside the
// picture, so that it can be changed and drawn again. Blocks until gnuplot ends; any thread.
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace hansa {

struct PlotSeries {
  enum class Line : std::uint8_t { Solid, Dashed, Dotted };
  std::string name;                               // in the legend; "" keeps it out
  std::vector<std::pair<double, double>> points;  // one point: a horizontal line across; NaN: a gap
  Line line = Line::Solid;
  std::size_t colour = 0;  // series of one subject share it; colours differ for 0 to 7
};
struct LinePlot {
  std::string title, x_label, y_label;
  std::vector<PlotSeries> series;
  std::optional<std::pair<double, double>> y_range = {};  // else what the points need, and a little more
};

struct BarPlot {
  std::string title, y_label;
  std::vector<std::pair<std::string, double>> bars;
};
using PlotPage = std::vector<std::variant<LinePlot, BarPlot>>;  // one below the other

// Writes `svg` and, beside it, the script (extension .gnuplot). Nothing returned: drawn; else the sentence that says why not
// (gnuplot missing, no data): a missing picture is no reason for a run to fail.
std::optional<std::string> draw_svg(const LinePlot& plot, const std::filesystem::path& svg);
std::optional<std::string> draw_svg(const PlotPage& page, const std::filesystem::path& svg);
std::string gnuplot_script(const LinePlot& plot, const std::string& svg_name);
std::string gnuplot_script(const PlotPage& page, const std::string& svg_name);

}  // namespace hansa
