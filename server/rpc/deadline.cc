#include "server/rpc/deadline.h"

namespace attnd::server {

std::chrono::steady_clock::time_point SteadyDeadline(gpr_timespec deadline) {
  using std::chrono::steady_clock;
  deadline = gpr_convert_clock_type(deadline, GPR_CLOCK_MONOTONIC);
  if (gpr_time_cmp(deadline, gpr_inf_future(GPR_CLOCK_MONOTONIC)) == 0) return steady_clock::time_point::max();
  const gpr_timespec left = gpr_time_sub(deadline, gpr_now(GPR_CLOCK_MONOTONIC));
  // A time beyond the clock's range, which ends in 292 years, is none.
  constexpr std::chrono::seconds kFar = std::chrono::hours(24 * 365 * 100);
  if (std::chrono::seconds(left.tv_sec) > kFar) return steady_clock::time_point::max();
  return steady_clock::now() + std::chrono::seconds(left.tv_sec) + std::chrono::nanoseconds(left.tv_nsec);
}

}  // namespace attnd::server
