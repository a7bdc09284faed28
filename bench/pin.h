// Which CPU a benchmark runs on.
#pragma once

#include <sched.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace attnd::bench {

// Keeps this thread, and those that it starts, on one CPU; a negative one is any. Errors: INVALID_ARGUMENT for one that
// this process may not use.
inline absl::Status Pin(int cpu) {
  if (cpu < 0) return absl::OkStatus();
  cpu_set_t set;
  CPU_ZERO(&set);
  if (cpu < CPU_SETSIZE) CPU_SET(static_cast<unsigned>(cpu), &set);
  if (sched_setaffinity(0, sizeof(set), &set) == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("--cpu: expected one that this process may use, got ", cpu));
}

}  // namespace attnd::bench
