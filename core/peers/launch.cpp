#include "peers/launch.hpp"

#include <algorithm>
#include <charconv>
#include <cstdlib>

#include <fmt/format.h>

#include "base/error.hpp"

namespace hansa::peers {
namespace {

class Reader {
 public:
  explicit Reader(const Variable& variable) : variable_(variable) {}
  bool has(const char* name) const { return variable_(name).has_value(); }
  std::string text(const char* name) const {
    const auto found = variable_(name);
    if (!found || found->empty())
      throw Error(
          fmt::format("several processes of this node were started, but {} is not set; torchrun sets RANK, WORLD_SIZE, "
                      "MASTER_ADDR and MASTER_PORT, under Slurm the last two are yours to set",
                      name));
    return *found;
  }
  std::uint64_t number(const char* name, std::uint64_t below) const {
    const auto found = text(name);
    std::uint64_t value = 0;
    const auto [end, problem] = std::from_chars(found.data(), found.data() + found.size(), value);
    if (problem != std::errc() || end != found.data() + found.size() || value >= below)
      throw Error(fmt::format("{} is '{}', and must be a number from 0 to {}", name, found, below - 1));
    return value;
  }

 private:
  const Variable& variable_;
};

struct Names {
  const char *rank, *size, *local_rank;
};

}  // namespace

std::optional<std::string> environment_variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? std::optional<std::string>(value) : std::nullopt;
}

std::optional<Launch> launch_from(const Variable& variable) {
  constexpr std::uint64_t kMost = 1 << 16;
  constexpr Names kUsual{"RANK", "WORLD_SIZE", "LOCAL_RANK"}, kSlurm{"SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"};
  const Reader read(variable);
  const bool slurm = !read.has(kUsual.rank) && !read.has(kUsual.size);
  // A batch script has Slurm's variables too; only who means several processes names where they meet.
  if (slurm && !(read.has(kSlurm.rank) && read.has(kSlurm.size) && read.has("MASTER_ADDR"))) return std::nullopt;
  const auto& names = slurm ? kSlurm : kUsual;
  Launch launch;
  launch.size = read.number(names.size, kMost);
  if (launch.size == 0) throw Error(fmt::format("{} is 0; a node has at least one process", names.size));
  if (launch.size == 1) return std::nullopt;
  launch.rank = read.number(names.rank, launch.size);
  launch.local_rank = read.has(names.local_rank) ? read.number(names.local_rank, launch.size) : launch.rank;
  launch.local_size = launch.size;
  if (!slurm && read.has("LOCAL_WORLD_SIZE")) launch.local_size = read.number("LOCAL_WORLD_SIZE", launch.size + 1);
  if (slurm && read.has("SLURM_NNODES"))
    launch.local_size = (launch.size - 1) / std::max<std::uint64_t>(1, read.number("SLURM_NNODES", kMost)) + 1;
  launch.address = read.text("MASTER_ADDR");
  launch.port = static_cast<std::uint16_t>(read.number("MASTER_PORT", 1 << 16));
  launch.met_elsewhere = variable("TORCHELASTIC_USE_AGENT_STORE") == "True";
  launch.attempt = variable("TORCHELASTIC_RESTART_COUNT").value_or("0");
  return launch;
}

}  // namespace hansa::peers
