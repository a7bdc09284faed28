// Counts of calls that the server ended. GetServerInfo reports them.
#pragma once

#include <atomic>
#include <cstdint>

namespace attnd::server {

// Since the server's start. Thread-safe. Relaxed order suffices, because the counts are independent.
struct Counters {
  std::atomic<std::int64_t> stalled_writes{0};  // calls ended because their caller did not read a result in time
  std::atomic<std::int64_t> stalled_reads{0};   // calls ended because their message did not arrive in time
};

}  // namespace attnd::server
