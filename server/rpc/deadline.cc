#include "server/rpc/deadline.h"

#include <cstdint>

#include "absl/strings/str_cat.h"
#include "server/rpc/status.h"
#include "server/rpc/status_macros.h"

namespace attnd::server {

std::chrono::steady_clock::time_point SteadyDeadline(gpr_timespec deadline) {
  using std::chrono::steady_clock;
  deadline = gpr_convert_clock_type(deadline, GPR_CLOCK_MONOTONIC);
  if (gpr_time_cmp(deadline, gpr_inf_future(GPR_CLOCK_MONOTONIC)) == 0) return steady_clock::time_point::max();
  const gpr_timespec left = gpr_time_sub(deadline, gpr_now(GPR_CLOCK_MONOTONIC));
  // A deadline beyond the clock's range, which ends after 292 years, counts as none.
  constexpr std::chrono::seconds kFar = std::chrono::hours(24 * 365 * 100);
  if (std::chrono::seconds(left.tv_sec) > kFar) return steady_clock::time_point::max();
  return steady_clock::now() + std::chrono::seconds(left.tv_sec) + std::chrono::nanoseconds(left.tv_nsec);
}

absl::StatusOr<absl::Duration> CheckedDuration(absl::string_view field, const google::protobuf::Duration& duration) {
  // The range of google.protobuf.Duration: ten thousand years.
  constexpr std::int64_t kMaxSeconds = 315'576'000'000;
  constexpr std::int32_t kMaxNanos = 999'999'999;
  const std::int64_t seconds = duration.seconds();
  const std::int32_t nanos = duration.nanos();
  if (seconds >= 0 && seconds <= kMaxSeconds && nanos >= 0 && nanos <= kMaxNanos) {
    return absl::Seconds(seconds) + absl::Nanoseconds(nanos);
  }
  return InvalidField(field, absl::StrCat("a duration of 0 to ", kMaxSeconds, " seconds, its nanos 0 to ", kMaxNanos),
                      absl::StrCat(seconds, " seconds and ", nanos, " nanos"));
}

absl::StatusOr<std::chrono::steady_clock::time_point> DeadlineAfter(const google::protobuf::Duration& timeout) {
  ATTND_ASSIGN_OR_RETURN(const absl::Duration time, CheckedDuration("timeout", timeout));
  using std::chrono::steady_clock;
  constexpr absl::Duration kFar = absl::Hours(24 * 365 * 100);
  if (time > kFar) return steady_clock::time_point::max();
  return steady_clock::now() + absl::ToChronoNanoseconds(time);
}

}  // namespace attnd::server
