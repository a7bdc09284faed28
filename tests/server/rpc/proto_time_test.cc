#include "server/rpc/proto_time.h"

#include <cstdint>
#include <limits>

#include "absl/time/time.h"
#include "gtest/gtest.h"

namespace attnd::server {
namespace {

TEST(ProtoTimeTest, DurationsAreExactToTheNanosecond) {
  const struct {
    absl::Duration duration;
    std::int64_t seconds;
    std::int32_t nanos;
  } kCases[] = {
      {absl::ZeroDuration(), 0, 0},
      {absl::Nanoseconds(1), 0, 1},
      {absl::Nanoseconds(999'999'999), 0, 999'999'999},
      {absl::Seconds(1), 1, 0},
      {absl::Milliseconds(1500), 1, 500'000'000},
      {absl::Seconds(1) - absl::Nanoseconds(1), 0, 999'999'999},
      {absl::Hours(24 * 365 * 200) + absl::Nanoseconds(7), std::int64_t{3600} * 24 * 365 * 200, 7},
      {absl::Seconds(std::numeric_limits<std::int64_t>::max()), std::numeric_limits<std::int64_t>::max(), 0},
      // What is less than a nanosecond is dropped.
      {absl::Nanoseconds(1) / 4, 0, 0},
      {absl::Nanoseconds(7) / 2, 0, 3},
      // Seconds and nanoseconds have the same sign.
      {absl::Nanoseconds(-1), 0, -1},
      {absl::Milliseconds(-1500), -1, -500'000'000},
      {absl::Seconds(-2), -2, 0},
  };
  for (const auto& c : kCases) {
    const google::protobuf::Duration proto = ToProto(c.duration);
    EXPECT_EQ(proto.seconds(), c.seconds) << c.duration;
    EXPECT_EQ(proto.nanos(), c.nanos) << c.duration;
  }
}

TEST(ProtoTimeTest, TimesCountFrom1970) {
  const struct {
    absl::Time time;
    std::int64_t seconds;
    std::int32_t nanos;
  } kCases[] = {
      {absl::UnixEpoch(), 0, 0},
      {absl::FromUnixNanos(1), 0, 1},
      {absl::FromUnixNanos(1'700'000'000'123'456'789), 1'700'000'000, 123'456'789},
      {absl::FromUnixSeconds(253'402'300'799), 253'402'300'799, 0},  // the last second of the year 9999
  };
  for (const auto& c : kCases) {
    const google::protobuf::Timestamp proto = ToProto(c.time);
    EXPECT_EQ(proto.seconds(), c.seconds) << c.time;
    EXPECT_EQ(proto.nanos(), c.nanos) << c.time;
  }
}

}  // namespace
}  // namespace attnd::server
