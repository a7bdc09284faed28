#include "server/warm_allocator.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace attnd::server {

void KeepFreedMemory() {
#ifdef __GLIBC__
  constexpr int kKeptBytes = 256 << 20;
  constexpr int kGrowthBytes = 16 << 20;
  constexpr int kMmapThreshold = 32 << 20;  // the largest that glibc takes
  mallopt(M_TRIM_THRESHOLD, kKeptBytes);
  mallopt(M_TOP_PAD, kGrowthBytes);
  mallopt(M_MMAP_THRESHOLD, kMmapThreshold);
#endif
}

}  // namespace attnd::server
