// The CPU that a benchmark runs on.
#pragma once

#include <sched.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace attnd::bench {

// Pins this thread, and the threads it starts, to one CPU; a negative `cpu` leaves them unpinned. Errors:
// INVALID_ARGUMENT for a CPU that this process may not use.
inline absl::Status Pin(int cpu) {
  if (cpu < 0) return absl::OkStatus();
  cpu_set_t set;
  CPU_ZERO(&set);
  if (cpu < CPU_SETSIZE) CPU_SET(static_cast<unsigned>(cpu), &set);
  if (sched_setaffinity(0, sizeof(set), &set) == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("--cpu: expected one that this process may use, got ", cpu));
}

}  // namespace attnd::bench
