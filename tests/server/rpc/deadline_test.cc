#include "server/rpc/deadline.h"

#include <chrono>
#include <cstdint>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "server/rpc/status.h"

namespace attnd::server {
namespace {

using std::chrono::steady_clock;

constexpr std::int64_t kSecondsOf100Years = std::int64_t{3600} * 24 * 365 * 100;

google::protobuf::Duration Proto(std::int64_t seconds, std::int32_t nanos) {
  google::protobuf::Duration proto;
  proto.set_seconds(seconds);
  proto.set_nanos(nanos);
  return proto;
}

TEST(SteadyDeadlineTest, IsAsFarAwayAsGrpcsOwn) {
  for (const std::int64_t milliseconds : {-7'200'000, -1'500, -1, 0, 1, 900, 3'000, 3'999, 7'200'000}) {
    for (const gpr_clock_type clock : {GPR_CLOCK_MONOTONIC, GPR_CLOCK_REALTIME}) {
      const steady_clock::time_point before = steady_clock::now();
      const steady_clock::time_point deadline =
          SteadyDeadline(gpr_time_add(gpr_now(clock), gpr_time_from_millis(milliseconds, GPR_TIMESPAN)));
      EXPECT_GE(deadline, before + std::chrono::milliseconds(milliseconds - 1)) << milliseconds;
      EXPECT_LE(deadline, steady_clock::now() + std::chrono::milliseconds(milliseconds + 1)) << milliseconds;
    }
  }
}

TEST(SteadyDeadlineTest, NoneAndFarOnesAreNone) {
  EXPECT_EQ(SteadyDeadline(gpr_inf_future(GPR_CLOCK_MONOTONIC)), steady_clock::time_point::max());
  EXPECT_EQ(SteadyDeadline(gpr_inf_future(GPR_CLOCK_REALTIME)), steady_clock::time_point::max());
  const auto in = [](std::int64_t seconds) {
    gpr_timespec deadline = gpr_now(GPR_CLOCK_MONOTONIC);
    deadline.tv_sec += seconds;
    return SteadyDeadline(deadline);
  };
  EXPECT_EQ(in(std::int64_t{1} << 60), steady_clock::time_point::max());
  EXPECT_EQ(in(kSecondsOf100Years + 60), steady_clock::time_point::max());
  EXPECT_LT(in(kSecondsOf100Years - 60), steady_clock::now() + std::chrono::seconds(kSecondsOf100Years));
}

TEST(CheckedDurationTest, BothFieldsUpToTheirLimits) {
  constexpr std::int64_t kMaxSeconds = 315'576'000'000;
  constexpr std::int32_t kMaxNanos = 999'999'999;
  for (const auto& [seconds, nanos] : {std::pair<std::int64_t, std::int32_t>{0, 0},
                                       {0, 1},
                                       {1, 0},
                                       {7, 250'000'000},
                                       {0, kMaxNanos},
                                       {kMaxSeconds, 0},
                                       {kMaxSeconds, kMaxNanos}}) {
    const absl::StatusOr<absl::Duration> duration = CheckedDuration("x", Proto(seconds, nanos));
    ASSERT_TRUE(duration.ok()) << duration.status();
    EXPECT_EQ(*duration, absl::Seconds(seconds) + absl::Nanoseconds(nanos));
  }
  constexpr std::int64_t kHighest = std::numeric_limits<std::int64_t>::max();
  for (const auto& [seconds, nanos] : {std::pair<std::int64_t, std::int32_t>{-1, 0},
                                       {0, -1},
                                       {-1, -1},
                                       {1, -1},
                                       {0, kMaxNanos + 1},
                                       {kMaxSeconds + 1, 0},
                                       {kHighest, 0},
                                       {-kHighest - 1, 0},
                                       {0, std::numeric_limits<std::int32_t>::min()}}) {
    const absl::Status refused = CheckedDuration("the field", Proto(seconds, nanos)).status();
    EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument) << seconds << " " << nanos;
    ASSERT_TRUE(DetailOf(refused).has_value());
    EXPECT_EQ(DetailOf(refused)->field(), "the field");
    EXPECT_EQ(DetailOf(refused)->got(), absl::StrCat(seconds, " seconds and ", nanos, " nanos"));
  }
}

TEST(DeadlineAfterTest, IsNowAndTheTimeout) {
  for (const auto& [seconds, nanos] :
       {std::pair<std::int64_t, std::int32_t>{0, 0}, {0, 900'000'000}, {3, 500'000'000}, {kSecondsOf100Years, 0}}) {
    const auto timeout = std::chrono::seconds(seconds) + std::chrono::nanoseconds(nanos);
    const steady_clock::time_point before = steady_clock::now();
    const absl::StatusOr<steady_clock::time_point> deadline = DeadlineAfter(Proto(seconds, nanos));
    ASSERT_TRUE(deadline.ok()) << deadline.status();
    EXPECT_GE(*deadline, before + timeout);
    EXPECT_LE(*deadline, steady_clock::now() + timeout);
  }
  EXPECT_EQ(*DeadlineAfter(Proto(kSecondsOf100Years, 1)), steady_clock::time_point::max());
  const absl::Status refused = DeadlineAfter(Proto(-1, 0)).status();
  ASSERT_TRUE(DetailOf(refused).has_value()) << refused;
  EXPECT_EQ(DetailOf(refused)->field(), "timeout");
}

}  // namespace
}  // namespace attnd::server
