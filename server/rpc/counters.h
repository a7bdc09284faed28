// Counts of what the server ended by itself. GetServerInfo shows them.
#pragma once

#include <atomic>
#include <cstdint>

namespace attnd::server {

// Since the start. Thread-safe. Relaxed order: each is a count of its own.
struct Counters {
  std::atomic<std::int64_t> stalled_writes{0};  // calls ended because a result was not taken in time
  std::atomic<std::int64_t> stalled_reads{0};   // calls ended because their message did not arrive in time
};

}  // namespace attnd::server
