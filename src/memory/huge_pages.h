// Transparent huge pages: whether the system provides them, and which memory is on them. Systems other than Linux
// report none. Source: Linux Documentation/admin-guide/mm/transhuge.rst and proc(5).
#pragma once

#include <cstddef>
#include <string>

namespace attnd::memory {

inline constexpr std::size_t kHugePageBytes = std::size_t{2} << 20;

// The active mode, "always", "madvise" or "never", from the text of /sys/kernel/mm/transparent_hugepage/enabled
// ("always [madvise] never"); empty if the text marks none.
std::string HugePageMode(const std::string& enabled);
// The active mode of this system; empty if it does not have that file.
std::string HugePageMode();

// Whether the mode lets a process get huge pages with madvise().
bool SystemHasHugePages();

// The fraction, 0 to 1, of resident memory that is on huge pages, over all mappings that overlap [data, data + bytes),
// as counted by /proc/self/smaps (anonymous and shared memory). 0 if nothing is resident.
double HugeFraction(const void* data, std::size_t bytes);

// Allocates `bytes` on the heap, touches them, and returns their HugeFraction. 0 if the allocation fails.
double HugeFractionOfHeap(std::size_t bytes);

}  // namespace attnd::memory
