#include "server/warm_allocator.h"

#ifdef __GLIBC__
#include <malloc.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#endif

namespace attnd::server {

#ifdef __GLIBC__
namespace {

// What the heap grows by: addresses, not memory.
constexpr int kGrowthBytes = 256 << 20;

// Asks for huge pages where the heap has just grown to. Without them it works all the same.
void UseHugePages() {
  constexpr std::uintptr_t kHugePage = std::uintptr_t{2} << 20;
  const std::uintptr_t end = reinterpret_cast<std::uintptr_t>(sbrk(0)) / kHugePage * kHugePage;
  madvise(reinterpret_cast<void*>(end - kGrowthBytes + kHugePage), kGrowthBytes - kHugePage, MADV_HUGEPAGE);
}

}  // namespace
#endif

void KeepFreedMemory() {
#ifdef __GLIBC__
  constexpr int kKeptBytes = 256 << 20;
  constexpr int kMmapThreshold = 32 << 20;  // the largest that glibc takes
  mallopt(M_TRIM_THRESHOLD, kKeptBytes);
  mallopt(M_TOP_PAD, kGrowthBytes);
  mallopt(M_MMAP_THRESHOLD, kMmapThreshold);
  // The other arenas' memory goes back to the system whatever the threshold, and is not asked for as huge pages.
  mallopt(M_ARENA_MAX, 1);
  constexpr std::size_t kMoreThanTheHeapHas = 4 << 20;
  std::free(std::malloc(kMoreThanTheHeapHas));
  UseHugePages();
#endif
}

}  // namespace attnd::server
