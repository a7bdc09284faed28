#include "server/models/executor.h"

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/notification.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace attnd::server {
namespace {

using testing::ElementsAre;

// Holds every thread of an executor until Go.
class Occupied {
 public:
  Occupied(Executor& executor, int threads) : begun_(threads), ended_(threads) {
    for (int i = 0; i < threads; ++i) {
      executor.Submit([this] {
        begun_.DecrementCount();
        go_.WaitForNotification();
        ended_.DecrementCount();
      });
    }
    begun_.Wait();
  }
  ~Occupied() {
    if (!go_.HasBeenNotified()) Go();
    ended_.Wait();
  }
  void Go() { go_.Notify(); }

 private:
  absl::BlockingCounter begun_;
  absl::BlockingCounter ended_;
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
  last.WaitForNotification();
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
  last.WaitForNotification();
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
  begun.WaitForNotification();
  EXPECT_FALSE(executor.Drop(number));
  go.Notify();
  ended.WaitForNotification();
}

}  // namespace
}  // namespace attnd::server
