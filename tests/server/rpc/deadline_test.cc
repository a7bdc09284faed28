#include "server/rpc/deadline.h"

#include <chrono>

#include "gtest/gtest.h"

namespace attnd::server {
namespace {

using std::chrono::steady_clock;

TEST(SteadyDeadlineTest, IsAsFarAwayAsGrpcsOwn) {
  for (const int seconds : {-7200, 0, 3, 7200}) {
    const steady_clock::time_point before = steady_clock::now();
    const steady_clock::time_point deadline =
        SteadyDeadline(gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_seconds(seconds, GPR_TIMESPAN)));
    EXPECT_GE(deadline, before + std::chrono::seconds(seconds) - std::chrono::milliseconds(1));
    EXPECT_LE(deadline, steady_clock::now() + std::chrono::seconds(seconds) + std::chrono::milliseconds(1));
  }
}

TEST(SteadyDeadlineTest, NoneAndFarOnesAreNone) {
  EXPECT_EQ(SteadyDeadline(gpr_inf_future(GPR_CLOCK_MONOTONIC)), steady_clock::time_point::max());
  EXPECT_EQ(SteadyDeadline(gpr_inf_future(GPR_CLOCK_REALTIME)), steady_clock::time_point::max());
  gpr_timespec far = gpr_now(GPR_CLOCK_MONOTONIC);
  far.tv_sec += std::int64_t{1} << 60;
  EXPECT_EQ(SteadyDeadline(far), steady_clock::time_point::max());
}

}  // namespace
}  // namespace attnd::server
