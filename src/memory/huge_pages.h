// Transparent huge pages: whether the system gives them, and which memory lies on them. On other systems than Linux,
// none is found. Source: Linux Documentation/admin-guide/mm/transhuge.rst and proc(5).
#pragma once

#include <cstddef>
#include <string>

namespace attnd::memory {

inline constexpr std::size_t kHugePageBytes = std::size_t{2} << 20;

// The mode in force, "always", "madvise" or "never", from the text of /sys/kernel/mm/transparent_hugepage/enabled
// ("always [madvise] never"); empty if the text has none.
std::string HugePageMode(const std::string& enabled);
// The same of this system; empty where it has no such file.
std::string HugePageMode();

// Whether that mode lets a process have huge pages by asking for them.
bool SystemHasHugePages();

// How much of the resident memory of the mappings that [data, data + bytes) touches lies on huge pages, 0 to 1, as
// /proc/self/smaps counts it (anonymous and shared memory). 0 where nothing is resident.
double HugeFraction(const void* data, std::size_t bytes);

// Allocates and touches `bytes` of the heap, and returns what HugeFraction says of them.
double HugeFractionOfHeap(std::size_t bytes);

}  // namespace attnd::memory
