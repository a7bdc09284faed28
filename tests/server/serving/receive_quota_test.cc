#include "server/serving/receive_quota.h"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <tuple>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "wait.h"

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

// What calls hold, as a test sets it, and the sizes that the quota was given.
class ReceiveQuotaTest : public testing::Test {
 protected:
  std::function<ReceiveQuota::Held()> Held() {
    return [this] {
      ++looks_;
      return ReceiveQuota::Held{used_, received_};
    };
  }
  std::function<void(std::int64_t)> Resized() {
    return [this](std::int64_t bytes) {
      absl::MutexLock lock(&mutex_);
      sizes_.push_back(bytes);
    };
  }
  std::vector<std::int64_t> sizes() {
    absl::MutexLock lock(&mutex_);
    return sizes_;
  }
  bool AwaitLooks(int more) {
    const int before = looks_;
    return test::Becomes([&] { return looks_ >= before + more; });
  }

  static constexpr std::int64_t kTotal = 1000;
  std::atomic<std::int64_t> used_{0};
  std::atomic<std::int64_t> received_{0};
  std::atomic<int> looks_{0};
  absl::Mutex mutex_;
  std::vector<std::int64_t> sizes_ ABSL_GUARDED_BY(mutex_);
};

TEST_F(ReceiveQuotaTest, FollowsWhatCallsHoldAndIsSetOnlyWhenThatChanges) {
  const ReceiveQuota quota(kTotal, Held(), Resized());
  std::vector<std::int64_t> expected = {kTotal, 2 * kTotal};  // as if calls held all, until the first look
  EXPECT_TRUE(test::Becomes([&] { return sizes() == expected; }));
  for (const auto& [used, received, size] :
       {std::tuple{400, 0, 1600}, {400, 300, 1900}, {1000, 0, 1000}, {0, 0, 2000}}) {
    received_ = received;
    used_ = used;
    EXPECT_TRUE(test::Becomes([&, size = size] { return sizes().back() == size; })) << used << " " << received;
  }
  ASSERT_TRUE(AwaitLooks(2));
  const std::size_t changes = sizes().size();
  ASSERT_TRUE(AwaitLooks(2));
  EXPECT_EQ(sizes().size(), changes) << "nothing has changed";
}

TEST_F(ReceiveQuotaTest, LooksAgainAndAgainUntilItEnds) {
  {
    auto* const quota = new ReceiveQuota(1 << 20, Held());
    EXPECT_TRUE(AwaitLooks(3));
    ASSERT_TRUE(test::Ends([quota] { delete quota; }));
  }
  const int seen = looks_;
  absl::SleepFor(2 * ReceiveQuota::kInterval);
  EXPECT_EQ(looks_, seen);
}

}  // namespace
}  // namespace attnd::server
