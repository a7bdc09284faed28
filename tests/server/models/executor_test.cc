#include "server/models/executor.h"

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
      EXPECT_TRUE(executor.Submit(0, [this] {
        begun_.DecrementCount();
        go_.WaitForNotification();
        ended_.DecrementCount();
      }));
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
  Executor executor(1, 100);
  std::vector<int> order;
  absl::Notification last;
  {
    Occupied occupied(executor, 1);
    for (int i = 0; i < 5; ++i) EXPECT_TRUE(executor.Submit(1, [&order, i] { order.push_back(i); }));
    EXPECT_TRUE(executor.Submit(1, [&last] { last.Notify(); }));
    EXPECT_FALSE(last.HasBeenNotified());
  }
  last.WaitForNotification();
  EXPECT_THAT(order, ElementsAre(0, 1, 2, 3, 4));
}

TEST(ExecutorTest, AllThreadsWork) {
  Executor executor(3, 100);
  Occupied occupied(executor, 3);  // waits until each of three jobs has begun
}

TEST(ExecutorTest, WhatWaitsIsBoundedByItsBytes) {
  Executor executor(1, 100);
  absl::Notification last;
  {
    Occupied occupied(executor, 1);
    const auto first = executor.Submit(60, [] {});
    ASSERT_TRUE(first.has_value());
    EXPECT_FALSE(executor.Submit(41, [] {}).has_value());
    ASSERT_TRUE(executor.Submit(40, [] {}).has_value());
    EXPECT_FALSE(executor.Submit(1, [] {}).has_value());
    EXPECT_TRUE(executor.Drop(*first));
    ASSERT_TRUE(executor.Submit(60, [&last] { last.Notify(); }).has_value()) << "a dropped job's bytes are free";
  }
  last.WaitForNotification();
  absl::Notification whole;
  EXPECT_TRUE(executor.Submit(100, [&whole] { whole.Notify(); }).has_value()) << "those of jobs that ran too";
  whole.WaitForNotification();
}

TEST(ExecutorTest, ADroppedJobNeverRunsAndIsDestroyedAtOnce) {
  Executor executor(1, 100);
  absl::Notification last;
  bool ran = false;
  {
    Occupied occupied(executor, 1);
    auto held = std::make_shared<int>();
    const std::weak_ptr<int> watched = held;
    const auto ticket = executor.Submit(1, [&ran, held] { ran = true; });
    held = nullptr;
    ASSERT_TRUE(ticket.has_value());
    EXPECT_FALSE(watched.expired());
    EXPECT_TRUE(executor.Drop(*ticket));
    EXPECT_TRUE(watched.expired());
    EXPECT_FALSE(executor.Drop(*ticket)) << "once";
    EXPECT_TRUE(executor.Submit(1, [&last] { last.Notify(); }));
  }
  last.WaitForNotification();
  EXPECT_FALSE(ran);
}

TEST(ExecutorTest, AJobThatHasBegunIsNotDropped) {
  Executor executor(1, 100);
  absl::Notification begun;
  absl::Notification go;
  absl::Notification ended;
  const auto ticket = executor.Submit(1, [&] {
    begun.Notify();
    go.WaitForNotification();
    ended.Notify();
  });
  begun.WaitForNotification();
  EXPECT_FALSE(executor.Drop(*ticket));
  go.Notify();
  ended.WaitForNotification();
}

TEST(ExecutorTest, UnreadResultsHoldFurtherJobsBack) {
  Executor executor(2, 100);
  executor.Hold(99);
  absl::Notification before;
  EXPECT_TRUE(executor.Submit(1, [&] { before.Notify(); }));
  before.WaitForNotification();
  executor.Hold(1);
  bool ran = false;
  const auto ticket = executor.Submit(1, [&] { ran = true; });
  // Nothing tells that a job does not run; had it begun, Drop would say so.
  EXPECT_TRUE(executor.Drop(*ticket));
  EXPECT_FALSE(ran);
  absl::Notification after;
  EXPECT_TRUE(executor.Submit(1, [&] { after.Notify(); }));
  executor.Release(1);
  after.WaitForNotification();
  executor.Release(99);
}

}  // namespace
}  // namespace attnd::server
