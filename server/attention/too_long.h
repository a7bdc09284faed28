// The error of a call that would wait for too long.
#pragma once

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "schedule/intake_line.h"

namespace attnd::server {

// RESOURCE_EXHAUSTED, with when to come back. With a deadline it blames that: the call would be done in the estimate.
// Without one (Clock::time_point::max()) it blames the queue: the call would wait for the estimate, and may wait for
// `max_queue_time`. Never throws: without memory it is "out of memory".
absl::Status TooLongError(const schedule::TooLong& too_long, schedule::Clock::time_point deadline,
                          absl::Duration max_queue_time);

}  // namespace attnd::server
