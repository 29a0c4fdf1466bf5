// The three builds of one kernel; directions.cpp chooses. Whole groups only: no file that is compiled for newer
// instructions may define anything that the linker could share with the rest.
#pragma once
#include <cstdint>

namespace hansa::seeds::kernel {

struct Job {
  const std::uint32_t* seeds;
  const float* weights;
  std::uint64_t terms;
  std::uint32_t family, tensor;
  std::uint64_t first_group, groups;
  float* to;  // groups * 128 elements; the terms are added to what is there
};
void add_scalar(const Job&);
void add_avx2(const Job&);
void add_avx512(const Job&);

}  // namespace hansa::seeds::kernel
