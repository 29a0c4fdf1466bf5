// Rotary positions as config.json writes them: rope_theta and rope_scaling (older; it wins where both are there), or
// rope_parameters. Throws hansa::Error naming the key, for types that we lack too.
#pragma once
#include <optional>
#include <string_view>

#include "nn/rope.hpp"

namespace hansa::hf {
class JsonConfig;
}

namespace hansa::nn {

struct RopeReading {  // what a family says about its keys
  std::int64_t head_dim = 0, max_positions = 0;
  double theta = 10000;  // where config.json is silent
  std::string_view theta_key = "rope_theta";
  std::string_view part_key = "partial_rotary_factor";
  std::optional<double> part;  // of a head that turns, where config.json is silent; none: always all of it
  // Phi-3: only longrope, which it has also called "su" and "yarn"; its original length is a key beside the tables.
  enum class Types : std::uint8_t { Any, LongRope };
  Types types = Types::Any;
  std::optional<std::int64_t> original_positions;
};

RopeSettings read_rope(hf::JsonConfig&, const RopeReading&);
// One table, where a family has several (Gemma 3); null: its defaults. `theta` where the table has none.
RopeSettings read_rope_table(hf::JsonConfig*, const RopeReading&, double theta);

}  // namespace hansa::nn
