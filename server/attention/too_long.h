// The error of a call that would wait too long.
#pragma once

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "schedule/intake_line.h"

namespace attnd::server {

// RESOURCE_EXHAUSTED with a retry delay. With a deadline, the error names "deadline" and the estimated time until the
// call would be done. Without one (Clock::time_point::max()), it names "queue", the estimated wait and
// `max_queue_time`. Never throws: without memory it returns memory::NoMemoryError().
absl::Status TooLongError(const schedule::TooLong& too_long, schedule::Clock::time_point deadline,
                          absl::Duration max_queue_time);

}  // namespace attnd::server
