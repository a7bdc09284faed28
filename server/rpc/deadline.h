// Deadlines of calls.
#pragma once

#include <chrono>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "google/protobuf/duration.pb.h"
#include "grpc/support/time.h"

namespace attnd::server {

// Converts `deadline` (a context's raw_deadline()) to the steady clock; max() if the call has none. gRPC stores the end
// of a call's remaining time by its own monotonic clock. The context's deadline() adds the remaining time to the time
// of day, so a deadline made from it moves when the clock is set.
std::chrono::steady_clock::time_point SteadyDeadline(gpr_timespec deadline);

// Converts a duration to Abseil's. Errors: INVALID_ARGUMENT, blaming `field`, if it is negative or not a valid
// duration.
absl::StatusOr<absl::Duration> CheckedDuration(absl::string_view field, const google::protobuf::Duration& duration);

// Returns now plus `timeout`, or max() if that is more than 100 years away. Errors: INVALID_ARGUMENT, blaming
// "timeout", if it is negative or not a valid duration.
absl::StatusOr<std::chrono::steady_clock::time_point> DeadlineAfter(const google::protobuf::Duration& timeout);

}  // namespace attnd::server
