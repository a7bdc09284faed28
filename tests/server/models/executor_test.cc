#include "server/models/executor.h"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/synchronization/notification.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "wait.h"

namespace attnd::server {
namespace {

using testing::ElementsAre;

// Holds every thread of an executor until Go.
class Occupied {
 public:
  Occupied(Executor& executor, int threads) : threads_(threads) {
    for (int i = 0; i < threads; ++i) {
      executor.Submit([this] {
        ++begun_;
        go_.WaitForNotification();
        ++ended_;
      });
    }
    EXPECT_TRUE(test::Becomes([this] { return begun_ == threads_; })) << "threads do not begin";
  }
  ~Occupied() {
    if (!go_.HasBeenNotified()) Go();
    EXPECT_TRUE(test::Becomes([this] { return ended_ == threads_; })) << "threads do not go on";
  }
  void Go() { go_.Notify(); }

 private:
  const int threads_;
  std::atomic<int> begun_{0};
  std::atomic<int> ended_{0};
  absl::Notification go_;
};

TEST(ExecutorTest, JobsRunInTheOrderOfArrival) {
  Executor executor(1);
  std::vector<int> order;
  absl::Notification last;
  {
    Occupied occupied(executor, 1);
    for (int i = 0; i < 5; ++i) executor.Submit([&order, i] { order.push_back(i); });
    executor.Submit([&last] { last.Notify(); });
    EXPECT_FALSE(last.HasBeenNotified());
  }
  ASSERT_TRUE(test::Comes(last));
  EXPECT_THAT(order, ElementsAre(0, 1, 2, 3, 4));
}

TEST(ExecutorTest, AllThreadsWork) {
  Executor executor(3);
  Occupied occupied(executor, 3);  // waits until each of three jobs has begun
}

TEST(ExecutorTest, ADroppedJobNeverRunsAndIsDestroyedAtOnce) {
  Executor executor(1);
  absl::Notification last;
  bool ran = false;
  {
    Occupied occupied(executor, 1);
    auto held = std::make_shared<int>();
    const std::weak_ptr<int> watched = held;
    const std::uint64_t number = executor.Submit([&ran, held] { ran = true; });
    held = nullptr;
    EXPECT_FALSE(watched.expired());
    EXPECT_TRUE(executor.Drop(number));
    EXPECT_TRUE(watched.expired());
    EXPECT_FALSE(executor.Drop(number)) << "once";
    executor.Submit([&last] { last.Notify(); });
  }
  ASSERT_TRUE(test::Comes(last));
  EXPECT_FALSE(ran);
}

TEST(ExecutorTest, AJobThatHasBegunIsNotDropped) {
  Executor executor(1);
  absl::Notification begun;
  absl::Notification go;
  absl::Notification ended;
  const std::uint64_t number = executor.Submit([&] {
    begun.Notify();
    go.WaitForNotification();
    ended.Notify();
  });
  ASSERT_TRUE(test::Comes(begun));
  EXPECT_FALSE(executor.Drop(number));
  go.Notify();
  ASSERT_TRUE(test::Comes(ended));
}

// A stop waits as long as an executor is busy, so it must neither be late to say so nor forget to be done.
TEST(ExecutorTest, IsBusyWhileJobsWaitOrRun) {
  for (const int threads : {1, 3}) {
    Executor executor(threads);
    EXPECT_FALSE(executor.busy());
    {
      Occupied occupied(executor, threads);
      EXPECT_TRUE(executor.busy()) << "they run, and none waits";
      const std::uint64_t waits = executor.Submit([] {});
      EXPECT_TRUE(executor.busy());
      EXPECT_TRUE(executor.Drop(waits));
      EXPECT_TRUE(executor.busy());
    }
    ASSERT_TRUE(test::Becomes([&] { return !executor.busy(); })) << threads;
    absl::Notification again;
    executor.Submit([&again] { again.Notify(); });
    ASSERT_TRUE(test::Comes(again));
    ASSERT_TRUE(test::Becomes([&] { return !executor.busy(); })) << threads;
  }
}

// Each of them wherever it stands, and then none of the others is missed.
TEST(ExecutorTest, DropsTheJobOfThatNumber) {
  constexpr int kJobs = 5;
  for (int dropped = 0; dropped < kJobs; ++dropped) {
    Executor executor(1);
    std::vector<int> ran;
    absl::Notification last;
    {
      Occupied occupied(executor, 1);
      std::vector<std::uint64_t> numbers;
      for (int i = 0; i < kJobs; ++i) numbers.push_back(executor.Submit([&ran, i] { ran.push_back(i); }));
      EXPECT_FALSE(executor.Drop(numbers.back() + 1)) << "nobody has that number";
      EXPECT_TRUE(executor.Drop(numbers[static_cast<std::size_t>(dropped)]));
      executor.Submit([&last] { last.Notify(); });
    }
    ASSERT_TRUE(test::Comes(last));
    std::vector<int> expected;
    for (int i = 0; i < kJobs; ++i) {
      if (i != dropped) expected.push_back(i);
    }
    EXPECT_EQ(ran, expected);
  }
}

TEST(ExecutorTest, EndsWithoutJobs) {
  auto* const executor = new Executor(2);
  ASSERT_TRUE(test::Ends([executor] { delete executor; }));
}

}  // namespace
}  // namespace attnd::server
