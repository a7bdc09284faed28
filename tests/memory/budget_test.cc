#include "memory/budget.h"

#include <limits>
#include <thread>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace attnd::memory {
namespace {

TEST(BudgetTest, LeasesHoldTheirBytesUntilTheyAreDestroyed) {
  Budget budget(100);
  std::optional<Budget::Lease> first = budget.Take(60);
  ASSERT_TRUE(first.has_value());
  EXPECT_FALSE(budget.Take(41).has_value());
  EXPECT_EQ(budget.used_bytes(), 60) << "a refusal takes nothing";
  const std::optional<Budget::Lease> second = budget.Take(40);
  ASSERT_TRUE(second.has_value());
  EXPECT_EQ(budget.used_bytes(), 100);
  Budget::Lease moved = *std::move(first);
  EXPECT_EQ(budget.used_bytes(), 100);
  moved = Budget::Lease();
  EXPECT_EQ(budget.used_bytes(), 40);
  EXPECT_TRUE(budget.Take(60).has_value());
}

TEST(BudgetTest, ALeaseThatTakesAnothersPlaceGivesItsOwnBytesBack) {
  Budget budget(100);
  Budget::Lease lease = *budget.Take(60);
  lease = *budget.Take(30);
  EXPECT_EQ(budget.used_bytes(), 30);
}

// gRPC may hold the bytes of a result for longer than the server lives.
TEST(BudgetTest, LeasesMayOutliveIt) {
  Budget::Lease lease;
  {
    Budget budget(100);
    lease = *budget.Take(60);
  }
  lease = Budget::Lease();
}

TEST(BudgetTest, PeakIsTheMostHeldSinceItWasTaken) {
  Budget budget(100);
  {
    const std::optional<Budget::Lease> first = budget.Take(60);
    const std::optional<Budget::Lease> second = budget.Take(30);
    EXPECT_FALSE(budget.Take(20).has_value());
  }
  const std::optional<Budget::Lease> held = budget.Take(10);
  EXPECT_EQ(budget.TakePeakBytes(), 90);
  EXPECT_EQ(budget.TakePeakBytes(), 10) << "what is held at that time counts again";
}

TEST(BudgetTest, HugeSizesDoNotOverflow) {
  constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
  Budget budget(kMost);
  const std::optional<Budget::Lease> most = budget.Take(kMost);
  ASSERT_TRUE(most.has_value());
  EXPECT_FALSE(budget.Take(kMost).has_value());
  EXPECT_FALSE(budget.Take(1).has_value());
}

TEST(BudgetTest, ThreadsNeverTakeMoreThanThereIs) {
  Budget budget(3);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&budget] {
      for (int round = 0; round < 2000; ++round) {
        const std::optional<Budget::Lease> one = budget.Take(1);
        const std::optional<Budget::Lease> two = budget.Take(2);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(budget.TakePeakBytes(), 3);
  EXPECT_EQ(budget.used_bytes(), 0);
}

}  // namespace
}  // namespace attnd::memory
