// Which of a node's several processes this is, by the variables that torchrun or Slurm set. Torch-free; values.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

namespace hansa::peers {

struct Launch {
  std::size_t rank = 0, size = 1;              // among all
  std::size_t local_rank = 0, local_size = 1;  // among those of this machine
  std::string address;                         // where the first process is met
  std::uint16_t port = 0;
  bool met_elsewhere = false;  // torchrun's own process answers there, not the first of ours
  std::string attempt;         // which start of these processes this is, where they are started again
};

using Variable = std::function<std::optional<std::string>(const char* name)>;
std::optional<std::string> environment_variable(const char* name);
// Nothing: one process. RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE; without RANK, under Slurm and where MASTER_ADDR is
// set, SLURM_PROCID, SLURM_NTASKS, SLURM_LOCALID and SLURM_NNODES. Throws Error that names the
// variable that is missing or wrong.
std::optional<Launch> launch_from(const Variable& = environment_variable);

}  // namespace hansa::peers
