#include "schedule/scheduler.h"

#include <atomic>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "schedule/arena.h"

namespace attnd::schedule {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;

constexpr double kHeavy = 1e7;  // never run on the submitting thread

// A work made of lambdas: `run` is called for each item with a function that unlocks others.
class LambdaWork : public Work {
 public:
  using Ready = absl::FunctionRef<void(Item)>;
  LambdaWork(std::int64_t count, std::vector<Item> initial, std::function<void(std::int64_t, Ready)> run)
      : count_(count), initial_(std::move(initial)), run_(std::move(run)) {}
  std::int64_t item_count() const override { return count_; }
  absl::Span<const Item> initial_items() const override { return initial_; }
  void Run(std::int64_t id, Arena&, Ready ready) override { run_(id, ready); }

 private:
  const std::int64_t count_;
  const std::vector<Item> initial_;
  const std::function<void(std::int64_t, Ready)> run_;
};

std::unique_ptr<Work> Simple(std::vector<Item> items, std::function<void(std::int64_t)> run) {
  const auto count = static_cast<std::int64_t>(items.size());
  return std::make_unique<LambdaWork>(count, std::move(items),
                                      [run = std::move(run)](std::int64_t id, LambdaWork::Ready) { run(id); });
}

std::vector<Item> Items(std::int64_t count, double cost) {
  std::vector<Item> items;
  for (std::int64_t id = 0; id < count; ++id) items.push_back({id, cost});
  return items;
}

Outcome RunAndWait(Scheduler& scheduler, std::unique_ptr<Work> work, SubmitOptions options = {}) {
  absl::Notification finished;
  Outcome outcome;
  scheduler.Submit(std::move(work), std::move(options), [&](const Outcome& o) {
    outcome = o;
    finished.Notify();
  });
  finished.WaitForNotification();
  return outcome;
}

class ThreadsTest : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(All, ThreadsTest, ::testing::Values(1, 2, 5));

// Two packing items unlock ten tiles each, and the last tile of each unlocks a merge.
TEST_P(ThreadsTest, EveryItemRunsOnceAndAfterWhatUnlocksIt) {
  Scheduler scheduler(GetParam());
  EXPECT_EQ(scheduler.threads(), GetParam());
  for (const double cost : {1.0, 1e5, kHeavy}) {
    std::vector<std::atomic<int>> runs(24);
    std::atomic<int> left[2] = {10, 10};
    auto work = std::make_unique<LambdaWork>(24, std::vector<Item>{{0, cost}, {1, cost}},
                                             [&](std::int64_t id, LambdaWork::Ready ready) {
                                               runs[static_cast<std::size_t>(id)]++;
                                               if (id < 2) {
                                                 for (std::int64_t tile = 0; tile < 10; ++tile)
                                                   ready({2 + id * 10 + tile, cost});
                                               } else if (id < 22) {
                                                 const auto head = static_cast<std::size_t>((id - 2) / 10);
                                                 EXPECT_EQ(runs[head], 1);
                                                 if (left[head].fetch_sub(1) == 1)
                                                   ready({static_cast<std::int64_t>(22 + head), cost});
                                               } else {
                                                 EXPECT_EQ(left[id - 22], 0);
                                               }
                                             });
    EXPECT_TRUE(RunAndWait(scheduler, std::move(work)).status.ok());
    for (const auto& count : runs) EXPECT_EQ(count, 1);
  }
}

TEST_P(ThreadsTest, ManySubmittersAllFinish) {
  std::atomic<int> items = 0, finished = 0;
  {
    Scheduler scheduler(GetParam());
    std::vector<std::thread> submitters;
    for (int t = 0; t < 4; ++t) {
      submitters.emplace_back([&, t] {
        for (int i = 0; i < 200; ++i) {
          scheduler.Submit(Simple(Items(5, (i + t) % 3 == 0 ? 1.0 : kHeavy), [&](std::int64_t) { ++items; }), {},
                           [&](const Outcome& outcome) {
                             EXPECT_TRUE(outcome.status.ok());
                             EXPECT_GE(outcome.queued, absl::ZeroDuration());
                             ++finished;
                           });
        }
      });
    }
    for (auto& thread : submitters) thread.join();
  }  // the destructor waits
  EXPECT_EQ(finished, 800);
  EXPECT_EQ(items, 4000);
}

TEST(SchedulerTest, TheMostCostlyItemGoesFirst) {
  Scheduler scheduler(1);
  std::vector<std::int64_t> order;
  RunAndWait(scheduler, Simple({{0, 2 * kHeavy}, {1, 4 * kHeavy}, {2, kHeavy}, {3, 3 * kHeavy}},
                               [&](std::int64_t id) { order.push_back(id); }));
  EXPECT_THAT(order, ElementsAre(1, 3, 0, 2));
}

// A small work that comes while a huge one runs is done after one more of the huge one's items at the most.
TEST(SchedulerTest, ASmallWorkOvertakesAHugeOne) {
  Scheduler scheduler(1);
  std::vector<std::string> order;
  absl::Notification small_finished, huge_finished;
  const auto submit_small = [&] {
    scheduler.Submit(Simple(Items(2, kHeavy), [&](std::int64_t) { order.push_back("small"); }), {},
                     [&](const Outcome&) { small_finished.Notify(); });
  };
  scheduler.Submit(Simple(Items(50, kHeavy),
                          [&](std::int64_t) {
                            order.push_back("huge");
                            if (order.size() == 20) submit_small();
                          }),
                   {}, [&](const Outcome&) { huge_finished.Notify(); });
  huge_finished.WaitForNotification();
  small_finished.WaitForNotification();
  ASSERT_EQ(order.size(), 52u);
  std::vector<std::size_t> places;
  for (std::size_t i = 0; i < order.size(); ++i) {
    if (order[i] == "small") places.push_back(i);
  }
  ASSERT_EQ(places.size(), 2u);
  EXPECT_LE(places[0], 21u);
  EXPECT_LE(places[1], 23u);
}

TEST(SchedulerTest, CheapWorkRunsOnTheSubmittingThread) {
  Scheduler scheduler(2);
  std::vector<std::thread::id> threads;
  bool finished = false;
  scheduler.Submit(Simple(Items(3, 100), [&](std::int64_t) { threads.push_back(std::this_thread::get_id()); }), {},
                   [&](const Outcome&) { finished = true; });
  EXPECT_TRUE(finished);
  EXPECT_THAT(threads, Each(std::this_thread::get_id()));
  EXPECT_EQ(threads.size(), 3u);
}

TEST(SchedulerTest, CancellationIsSeenBetweenItems) {
  for (const double cost : {1.0, kHeavy}) {
    Scheduler scheduler(1);
    int runs = 0;
    SubmitOptions options;
    CancelToken token = options.cancel;
    const Outcome outcome = RunAndWait(scheduler,
                                       Simple(Items(100, cost),
                                              [&](std::int64_t) {
                                                if (++runs == 3) token.Cancel();
                                              }),
                                       options);
    EXPECT_EQ(outcome.status.code(), absl::StatusCode::kCancelled);
    EXPECT_EQ(runs, 3);
  }
}

TEST(SchedulerTest, APastDeadlineRunsNothing) {
  for (const double cost : {1.0, kHeavy}) {
    Scheduler scheduler(2);
    std::atomic<int> runs = 0;
    SubmitOptions options;
    options.deadline = Clock::now() - std::chrono::seconds(1);
    const Outcome outcome = RunAndWait(scheduler, Simple(Items(10, cost), [&](std::int64_t) { ++runs; }), options);
    EXPECT_EQ(outcome.status.code(), absl::StatusCode::kDeadlineExceeded);
    EXPECT_EQ(runs, 0);
  }
}

// What a work holds is free when `done` is called, however the work ended and wherever it ran.
TEST(SchedulerTest, AWorkIsDestroyedBeforeItIsDone) {
  Scheduler scheduler(2);
  for (const double cost : {1.0, kHeavy}) {
    for (const bool cancel : {false, true}) {
      const auto held = std::make_shared<int>();
      SubmitOptions options;
      CancelToken token = options.cancel;
      absl::Notification finished;
      std::atomic<long> uses = 0;
      scheduler.Submit(Simple(Items(3, cost),
                              [copy = held, token, cancel](std::int64_t) mutable {
                                if (cancel) token.Cancel();
                              }),
                       options, [&](const Outcome& outcome) {
                         EXPECT_EQ(outcome.status.ok(), !cancel);
                         uses = held.use_count();
                         finished.Notify();
                       });
      finished.WaitForNotification();
      EXPECT_EQ(uses, 1) << cost << " " << cancel;
    }
  }
}

// The only thread is busy from beginning to end: nobody's turn comes.
TEST(SchedulerTest, AWaitingWorkIsGivenBackWhenItIsCancelled) {
  absl::Notification busy, release;
  std::atomic<int> runs = 0;
  Scheduler scheduler(1);
  scheduler.Submit(Simple(Items(1, kHeavy),
                          [&](std::int64_t) {
                            busy.Notify();
                            release.WaitForNotification();
                          }),
                   {}, [](const Outcome& outcome) { EXPECT_TRUE(outcome.status.ok()); });
  busy.WaitForNotification();
  SubmitOptions options;  // of several works, as a stream's pieces have it
  const auto held = std::make_shared<int>();
  int cancelled = 0;
  for (int i = 0; i < 3; ++i) {
    scheduler.Submit(Simple(Items(5, kHeavy), [&runs, copy = held](std::int64_t) { ++runs; }), options,
                     [&](const Outcome& outcome) {
                       EXPECT_EQ(outcome.status.code(), absl::StatusCode::kCancelled);
                       ++cancelled;
                     });
  }
  EXPECT_EQ(held.use_count(), 4);
  options.cancel.Cancel();
  EXPECT_EQ(cancelled, 3);
  EXPECT_EQ(held.use_count(), 1);
  // One that comes with a token that is cancelled already does not wait either.
  scheduler.Submit(Simple(Items(5, kHeavy), [&](std::int64_t) { ++runs; }), options, [&](const Outcome& outcome) {
    EXPECT_EQ(outcome.status.code(), absl::StatusCode::kCancelled);
    ++cancelled;
  });
  EXPECT_EQ(cancelled, 4);
  release.Notify();
  EXPECT_TRUE(RunAndWait(scheduler, Simple(Items(2, kHeavy), [](std::int64_t) {})).status.ok());
  EXPECT_EQ(runs, 0);
}

// Of a work that is being run, what waits is not begun, and the last item that runs ends it.
TEST(SchedulerTest, ARunningWorkEndsWithTheItemsThatRun) {
  absl::Notification running[2], release[2], finished;
  std::atomic<int> runs = 0;
  Scheduler scheduler(2);
  SubmitOptions options;
  scheduler.Submit(Simple(Items(10, kHeavy),
                          [&](std::int64_t) {
                            const int run = runs++;
                            running[run].Notify();
                            release[run].WaitForNotification();
                          }),
                   options, [&](const Outcome& outcome) {
                     EXPECT_EQ(outcome.status.code(), absl::StatusCode::kCancelled);
                     finished.Notify();
                   });
  for (auto& notification : running) notification.WaitForNotification();
  options.cancel.Cancel();
  release[0].Notify();
  EXPECT_FALSE(finished.HasBeenNotified()) << "the other item still runs";
  release[1].Notify();
  finished.WaitForNotification();
  EXPECT_EQ(runs, 2);
}

// Works that end by themselves and by cancellation at the same time, each exactly once.
TEST_P(ThreadsTest, CancellationRacesWithTheEnd) {
  constexpr int kWorks = 2000;
  std::atomic<int> finished = 0;
  {
    Scheduler scheduler(GetParam());
    std::vector<std::thread> submitters;
    for (int t = 0; t < 3; ++t) {
      submitters.emplace_back([&] {
        for (int i = 0; i < kWorks; ++i) {
          SubmitOptions options;
          scheduler.Submit(Simple(Items(1 + i % 4, i % 5 == 0 ? 1.0 : kHeavy), [](std::int64_t) {}), options,
                           [&](const Outcome& outcome) {
                             EXPECT_TRUE(outcome.status.ok() || absl::IsCancelled(outcome.status));
                             ++finished;
                           });
          if (i % 3 != 0) options.cancel.Cancel();
        }
      });
    }
    for (auto& thread : submitters) thread.join();
  }
  EXPECT_EQ(finished, 3 * kWorks);
}

// One work's end leaves the others as they are.
TEST(SchedulerTest, ACancelledWorkDoesNotDisturbAnother) {
  Scheduler scheduler(3);
  std::atomic<int> runs = 0;
  absl::Notification both[2];
  SubmitOptions options;
  CancelToken token = options.cancel;
  scheduler.Submit(Simple(Items(1000, kHeavy), [&](std::int64_t) { token.Cancel(); }), options, [&](const Outcome& o) {
    EXPECT_EQ(o.status.code(), absl::StatusCode::kCancelled);
    both[0].Notify();
  });
  scheduler.Submit(Simple(Items(500, kHeavy), [&](std::int64_t) { ++runs; }), {}, [&](const Outcome& o) {
    EXPECT_TRUE(o.status.ok());
    both[1].Notify();
  });
  for (auto& notification : both) notification.WaitForNotification();
  EXPECT_EQ(runs, 500);
}

TEST(ArenaTest, KeepsItsLargestBlockAligned) {
  Arena arena;
  std::byte* large = arena.Get(1 << 20);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(large) % 64, 0u);
  EXPECT_EQ(arena.Get(100), large);
  EXPECT_EQ(arena.capacity(), std::size_t{1} << 20);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(arena.Get((1 << 20) + 1)) % 64, 0u);
}

// An item that has no memory ends its work, once, and no other's.
TEST_P(ThreadsTest, AnItemWithoutMemoryEndsItsWork) {
  Scheduler scheduler(GetParam());
  for (const double cost : {1.0, kHeavy}) {
    for (const std::int64_t failing : {0, 7, 19}) {
      std::atomic<int> begun{0};
      std::atomic<int> done{0};
      absl::Notification finished;
      Outcome outcome;
      scheduler.Submit(Simple(Items(20, cost),
                              [&](std::int64_t id) {
                                ++begun;
                                if (id == failing) throw std::bad_alloc();
                              }),
                       {}, [&](const Outcome& o) {
                         outcome = o;
                         if (++done == 1) finished.Notify();
                       });
      finished.WaitForNotification();
      EXPECT_EQ(outcome.status.code(), absl::StatusCode::kResourceExhausted) << outcome.status;
      EXPECT_LE(begun, 20);
      EXPECT_TRUE(RunAndWait(scheduler, Simple(Items(20, cost), [](std::int64_t) {})).status.ok());
      EXPECT_EQ(done, 1);
    }
  }
}

// Also where others of the work run meanwhile, and unlock more.
TEST_P(ThreadsTest, WhatItHadUnlockedIsNotBegun) {
  Scheduler scheduler(GetParam());
  std::atomic<int> after{0};
  auto work =
      std::make_unique<LambdaWork>(3, std::vector<Item>{{0, kHeavy}}, [&](std::int64_t id, LambdaWork::Ready ready) {
        if (id > 0) ++after;
        if (id == 0) ready({1, kHeavy});
        if (id == 0) throw std::bad_alloc();
      });
  EXPECT_EQ(RunAndWait(scheduler, std::move(work)).status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(after, 0);
}

}  // namespace
}  // namespace attnd::schedule
