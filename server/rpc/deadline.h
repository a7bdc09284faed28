// When a call is to be over.
#pragma once

#include <chrono>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "google/protobuf/duration.pb.h"
#include "grpc/support/time.h"

namespace attnd::server {

// `deadline` (a context's raw_deadline()) by the steady clock; max() if the call has none. gRPC takes a call's
// remaining time at its arrival and keeps the end by its own monotonic clock. Its deadline() adds the time of day to
// what is left, and what is made from that moves when the clock is set.
std::chrono::steady_clock::time_point SteadyDeadline(gpr_timespec deadline);

// The same as Abseil's. Errors: INVALID_ARGUMENT, blaming `field`, for less than no time or what is no duration.
absl::StatusOr<absl::Duration> CheckedDuration(absl::string_view field, const google::protobuf::Duration& duration);

// Now and `timeout` later; max() where that is later than the clock's end. Errors: INVALID_ARGUMENT, blaming "timeout",
// for less than no time or what is no duration.
absl::StatusOr<std::chrono::steady_clock::time_point> DeadlineAfter(const google::protobuf::Duration& timeout);

}  // namespace attnd::server
