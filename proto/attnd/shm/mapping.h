// How client and server map a region.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>

namespace attnd::shm {

// Both sides map large regions at a multiple of this, because only there can their pages be huge pages.
inline constexpr std::size_t kHugePageBytes = std::size_t{2} << 20;

// Maps the memfd's first `size` bytes (> 0) for reading and writing. `flags` is MAP_POPULATE or 0. Returns MAP_FAILED
// and sets errno if the system refuses. The caller unmaps with munmap(data, size).
inline void* Map(int fd, std::size_t size, int flags) {
  if (size < kHugePageBytes || size > SIZE_MAX - kHugePageBytes) {
    return mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | flags, fd, 0);
  }
  // Try an ordinary mapping first: a failed mapping at a fixed address may leave a hole there.
  void* const trial = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (trial == MAP_FAILED) return MAP_FAILED;
  munmap(trial, size);
  // Reserve a larger range of addresses, map at the boundary within it, and unmap the rest.
  const std::size_t reserved = size + kHugePageBytes;
  void* const reservation = mmap(nullptr, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (reservation == MAP_FAILED) return MAP_FAILED;
  char* const begin = static_cast<char*>(reservation);
  const std::size_t before =
      (kHugePageBytes - reinterpret_cast<std::uintptr_t>(begin) % kHugePageBytes) % kHugePageBytes;
  void* const data = mmap(begin + before, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | flags, fd, 0);
  const int error = errno;
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  const std::size_t end = before + (size + page - 1) / page * page;
  if (before > 0) munmap(begin, before);
  if (reserved > end) munmap(begin + end, reserved - end);
  errno = error;
  return data;
}

// Moves memory that Map returned to huge pages, except for a tail smaller than one. Returns false if the system cannot
// do it (it needs Linux 6.1, whatever its huge page mode for shared memory), or if there is no whole huge page. The
// memory must be resident.
inline bool UseHugePages(void* data, std::size_t size) {
  constexpr int kCollapse = 25;  // MADV_COLLAPSE; Debian's headers are too old to have it
  const std::size_t whole = size / kHugePageBytes * kHugePageBytes;
  return whole > 0 && madvise(data, whole, kCollapse) == 0;
}

}  // namespace attnd::shm
