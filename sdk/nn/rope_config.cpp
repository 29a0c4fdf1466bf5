#include "nn/rope_config.hpp"

#include "hf/json_config.hpp"

namespace hansa::nn {

namespace {

struct Found {
  std::optional<double> theta;
  std::optional<RopeSettings::Llama3> llama3;
};

Found read_table(hf::JsonConfig& table) {
  Found found{.theta = table.real("rope_theta")};
  table.only("partial_rotary_factor", {"1.0", "1"});
  const auto newer = table.text("rope_type"), older = table.text("type");
  const auto type = newer.value_or(older.value_or("default"));
  if (type == "default") return found;
  if (type != "llama3") table.refuse(newer ? "rope_type" : "type", "default, llama3");
  found.llama3 =
      RopeSettings::Llama3{.factor = table.required_real("factor"),
                           .low_frequency_factor = table.required_real("low_freq_factor"),
                           .high_frequency_factor = table.required_real("high_freq_factor"),
                           .original_max_positions = table.required_real("original_max_position_embeddings")};
  if (found.llama3->factor <= 0) table.refuse("factor", "a number above 0");
  if (found.llama3->high_frequency_factor <= found.llama3->low_frequency_factor ||
      found.llama3->low_frequency_factor <= 0)
    table.refuse("high_freq_factor", "a number above low_freq_factor, both above 0");
  return found;
}

}  // namespace

RopeSettings read_rope(hf::JsonConfig& config, std::int64_t head_dim, double default_theta) {
  config.only("partial_rotary_factor", {"1.0", "1"});
  const auto theta = config.real("rope_theta");
  auto* older = config.object("rope_scaling");
  auto* newer = config.object("rope_parameters");
  Found found;
  if (newer) found = read_table(*newer);
  if (older) {  // wins where both are there; the newer table may still hold theta
    auto scaling = read_table(*older);
    if (!scaling.theta) scaling.theta = found.theta;
    found = scaling;
  }
  RopeSettings settings{
      .head_dim = head_dim, .theta = found.theta.value_or(theta.value_or(default_theta)), .llama3 = found.llama3};
  if (settings.theta <= 0) config.refuse("rope_theta", "a number above 0");
  return settings;
}

}  // namespace hansa::nn
