// What the round journal says, one struct per kind of record, and their JSON. Only the machine writes and reads them.
// from_json throws Error for a record that this version does not know.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <hansa/types.hpp>

#include "round/work.hpp"

namespace hansa::records {

struct Joined {
  NodeFacts facts;
};
struct Opened {
  RoundPlan plan;
};
struct Received {
  Round round = 0;
  std::uint32_t attempt = 0;
  NodeId node = 0;
  Upload upload;
};
struct Closed {
  Round round = 0;
  std::uint32_t attempt = 0;
  std::vector<NodeId> cohort;  // those that are folded, ascending
};
struct Aborted {
  Round round = 0;
  std::uint32_t attempt = 0;
  std::string reason;
};
struct Released {
  Round round = 0;
  std::uint32_t attempt = 0;
  Version version;
};
struct EvaluationOpened {
  Epoch epoch = 0;
  std::vector<NodeId> nodes;
};
struct Evaluated {
  Epoch epoch = 0;
  NodeId node = 0;
  Claims claims;
};
struct EvaluationClosed {
  Epoch epoch = 0;
};
struct Finished {};

using Record = std::variant<Joined, Opened, Received, Closed, Aborted, Released, EvaluationOpened, Evaluated,
                            EvaluationClosed, Finished>;

std::string to_json(const Record& record);
Record from_json(std::string_view json);

}  // namespace hansa::records
