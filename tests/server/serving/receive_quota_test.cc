#include "server/serving/receive_quota.h"

#include <atomic>
#include <cstdint>
#include <limits>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"

namespace attnd::server {
namespace {

constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();

TEST(ReceiveBytesTest, FollowsWhatCallsHoldBesideMessages) {
  EXPECT_EQ(ReceiveBytes(1000, 0, 0), 2000);
  EXPECT_EQ(ReceiveBytes(1000, 400, 0), 1600);
  EXPECT_EQ(ReceiveBytes(1000, 400, 400), 2000) << "those are in the quota themselves";
  EXPECT_EQ(ReceiveBytes(1000, 400, 300), 1900);
  EXPECT_EQ(ReceiveBytes(1000, 1000, 0), 1000);
}

TEST(ReceiveBytesTest, NumbersThatWereReadApart) {
  EXPECT_EQ(ReceiveBytes(1000, 1001, 0), 1000);
  EXPECT_EQ(ReceiveBytes(1000, 10, 20), 2000);
  EXPECT_EQ(ReceiveBytes(kMost, 0, 0), kMost);
  EXPECT_EQ(ReceiveBytes(kMost, kMost, 0), kMost);
}

TEST(ReceiveQuotaTest, LooksAgainAndAgainUntilItEnds) {
  std::atomic<int> looks{0};
  {
    absl::Notification again;
    const ReceiveQuota quota(1 << 20, [&] {
      if (++looks == 3) again.Notify();
      return ReceiveQuota::Held{0, 0};
    });
    again.WaitForNotification();
  }
  const int seen = looks;
  absl::SleepFor(2 * ReceiveQuota::kInterval);
  EXPECT_EQ(looks, seen);
}

}  // namespace
}  // namespace attnd::server
