#include "allocator.hpp"

#include <malloc.h>

#include <cstdlib>

namespace hansa {

void keep_large_blocks(Keeps keeps) {
#ifdef __GLIBC__
  mallopt(M_MMAP_THRESHOLD, 32 << 20);  // glibc's largest
  mallopt(M_TRIM_THRESHOLD, keeps == Keeps::Everything ? -1 : 64 << 20);
#endif
  setenv("THP_MEM_ALLOC_ENABLE", "1", 0);  // read by LibTorch at its first allocation
}

}  // namespace hansa
