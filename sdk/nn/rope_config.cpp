#include "nn/rope_config.hpp"

#include <cmath>

#include "hf/json_config.hpp"

namespace hansa::nn {

namespace {

double factor_of(hf::JsonConfig& table) {
  const double factor = table.required_real("factor");
  if (factor <= 0) table.refuse("factor", "a number above 0");
  return factor;
}

double original_of(hf::JsonConfig& table, const RopeReading& reading) {
  const double own = static_cast<double>(table.positive("original_max_position_embeddings", reading.max_positions));
  return reading.original_positions ? static_cast<double>(*reading.original_positions) : own;
}

RopeSettings::Llama3 llama3(hf::JsonConfig& table, const RopeReading& reading) {
  const RopeSettings::Llama3 s{.factor = factor_of(table),
                               .low_frequency_factor = table.required_real("low_freq_factor"),
                               .high_frequency_factor = table.required_real("high_freq_factor"),
                               .original_max_positions = original_of(table, reading)};
  if (s.high_frequency_factor <= s.low_frequency_factor || s.low_frequency_factor <= 0)
    table.refuse("high_freq_factor", "a number above low_freq_factor, both above 0");
  return s;
}

void yarn(hf::JsonConfig& table, const RopeReading& reading, RopeSettings& settings) {
  RopeSettings::Yarn s;
  s.original_max_positions = original_of(table, reading);
  s.factor = table.real("factor", static_cast<double>(reading.max_positions) / s.original_max_positions);
  if (s.factor <= 0) table.refuse("factor", "a number above 0");
  s.beta_fast = table.real("beta_fast", 32);
  s.beta_slow = table.real("beta_slow", 1);
  s.truncate = table.flag("truncate", true);
  const auto grown = [&](double by) { return s.factor <= 1 ? 1.0 : 0.1 * by * std::log(s.factor) + 1; };
  const double scale = table.real("mscale", 0), scale_all = table.real("mscale_all_dim", 0);
  const double inferred = scale != 0 && scale_all != 0 ? grown(scale) / grown(scale_all) : grown(1);
  settings.magnitude = table.real("attention_factor", inferred);
  settings.scaling = s;
}

void longrope(hf::JsonConfig& table, const RopeReading& reading, RopeSettings& settings) {
  RopeSettings::LongRope s;
  s.original_max_positions = original_of(table, reading);
  const auto factors = [&](std::string_view key) {
    auto list = table.reals(key).value_or(std::vector<double>());
    bool fits = static_cast<std::int64_t>(list.size()) == settings.dim / 2;
    for (const double one : list) fits = fits && one > 0;
    if (!fits) table.refuse(key, "a list of numbers above 0, one for each pair of a head's turned dimensions");
    return list;
  };
  s.short_factor = factors("short_factor");
  s.long_factor = factors("long_factor");
  const double factor = table.real("factor", static_cast<double>(reading.max_positions) / s.original_max_positions);
  const double inferred = factor <= 1 ? 1 : std::sqrt(1 + std::log(factor) / std::log(s.original_max_positions));
  settings.magnitude = table.real("attention_factor", inferred);
  // Older exports name what Transformers does not read.
  table.inert({{"short_mscale", "Transformers infers it"}, {"long_mscale", "Transformers infers it"}});
  settings.scaling = s;
}

}  // namespace

RopeSettings read_rope_table(hf::JsonConfig* table, const RopeReading& reading, double theta) {
  RopeSettings settings{.dim = reading.head_dim, .theta = theta};
  if (!table) return settings;
  settings.theta = table->real("rope_theta", theta);
  if (settings.theta <= 0) table->refuse("rope_theta", "a number above 0");
  if (reading.part) {
    const double part = table->real("partial_rotary_factor", *reading.part);
    settings.dim = static_cast<std::int64_t>(static_cast<double>(reading.head_dim) * part);
    if (part <= 0 || part > 1 || settings.dim < 2 || settings.dim % 2 != 0)
      table->refuse("partial_rotary_factor", "a share of the head that is an even number of dimensions");
  } else {
    table->only("partial_rotary_factor", {"1.0", "1"});
  }
  const auto newer = table->text("rope_type"), older = table->text("type");
  const auto type = newer.value_or(older.value_or("default"));
  const auto key = newer ? "rope_type" : "type";
  if (type == "default") {
    table->integer("original_max_position_embeddings");  // written beside it, without effect
    return settings;
  }
  if (reading.types == RopeReading::Types::LongRope) {
    if (type != "longrope" && type != "su" && type != "yarn") table->refuse(key, "default, longrope, su, yarn");
    longrope(*table, reading, settings);
  } else if (type == "linear") {
    settings.scaling = RopeSettings::Linear{factor_of(*table)};
  } else if (type == "dynamic") {
    settings.scaling = RopeSettings::Dynamic{factor_of(*table), static_cast<double>(reading.max_positions)};
    if (settings.dim <= 2) table->refuse(key, "heads of more than two dimensions with dynamic");
  } else if (type == "llama3") {
    settings.scaling = llama3(*table, reading);
  } else if (type == "yarn") {
    yarn(*table, reading, settings);
  } else if (type == "longrope") {
    longrope(*table, reading, settings);
  } else {
    table->refuse(key, "default, linear, dynamic, llama3, yarn, longrope");
  }
  return settings;
}

RopeSettings read_rope(hf::JsonConfig& config, const RopeReading& reading) {
  const double theta = config.real(reading.theta_key, reading.theta);
  if (theta <= 0) config.refuse(reading.theta_key, "a number above 0");
  auto with = reading;
  if (reading.part)
    with.part = config.real(reading.part_key, *reading.part);
  else
    config.only(reading.part_key, {"1.0", "1"});
  auto* newer = config.object("rope_parameters");
  auto* older = config.object("rope_scaling");
  auto settings = read_rope_table(newer, with, theta);
  if (older) settings = read_rope_table(older, with, theta);
  if (!newer && !older && with.part) {
    settings.dim = static_cast<std::int64_t>(static_cast<double>(reading.head_dim) * *with.part);
    if (*with.part <= 0 || *with.part > 1 || settings.dim < 2 || settings.dim % 2 != 0)
      config.refuse(reading.part_key, "a share of the head that is an even number of dimensions");
  }
  return settings;
}

}  // namespace hansa::nn
