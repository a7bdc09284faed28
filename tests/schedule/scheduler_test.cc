#include "schedule/scheduler.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <numeric>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "schedule/arena.h"
#include "scripted.h"

namespace attnd::schedule {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;

constexpr double kHeavy = 1e7;  // never run on the submitting thread

struct TestItem {
  std::int64_t id;
  double cost;
};

// A work made of lambdas: `run` is called for each item with a function that unlocks others.
class LambdaWork : public Work {
 public:
  using Ready = absl::FunctionRef<void(TestItem)>;
  using RunFunction = std::function<void(std::int64_t, Ready, Pause)>;
  LambdaWork(std::vector<TestItem> initial, RunFunction run) : ready_(std::move(initial)), run_(std::move(run)) {}

  double cost() const override {
    return std::accumulate(ready_.begin(), ready_.end(), 0.0,
                           [](double sum, const TestItem& item) { return sum + item.cost; });
  }
  std::optional<Item> Next() override {
    if (ready_.empty()) return std::nullopt;
    const auto next = std::max_element(ready_.begin(), ready_.end(), [](const TestItem& a, const TestItem& b) {
      return a.cost != b.cost ? a.cost < b.cost : a.id > b.id;
    });
    const TestItem item = *next;
    ready_.erase(next);
    return Item{item.cost, 0, 0, item.id, 0};
  }
  std::int64_t ready() const override { return static_cast<std::int64_t>(ready_.size()); }
  void Run(const Item& item, Arena&, Pause pause) override {
    const auto ready = [this](TestItem unlocked) {
      absl::MutexLock lock(&mutex_);
      unlocked_.push_back(unlocked);
    };
    run_(item.first, ready, pause);
  }
  void Finish(const Item&) override {
    absl::MutexLock lock(&mutex_);
    ready_.insert(ready_.end(), unlocked_.begin(), unlocked_.end());
    unlocked_.clear();
  }

 private:
  std::vector<TestItem> ready_;
  const RunFunction run_;
  absl::Mutex mutex_;
  std::vector<TestItem> unlocked_;
};

std::unique_ptr<Work> Simple(std::vector<TestItem> items, std::function<void(std::int64_t)> run) {
  return std::make_unique<LambdaWork>(std::move(items),
                                      [run = std::move(run)](std::int64_t id, LambdaWork::Ready, Pause) { run(id); });
}

std::vector<TestItem> Items(std::int64_t count, double cost) {
  std::vector<TestItem> items;
  for (std::int64_t id = 0; id < count; ++id) items.push_back({id, cost});
  return items;
}

Outcome RunAndWait(BoundedScheduler& scheduler, std::unique_ptr<Work> work, SubmitOptions options = {}) {
  absl::Notification finished;
  Outcome outcome;
  scheduler.Submit(std::move(work), std::move(options), [&](const Outcome& o) {
    outcome = o;
    finished.Notify();
  });
  Await(finished);
  return outcome;
}

class ThreadsTest : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(All, ThreadsTest, ::testing::Values(1, 2, 5));

// Two packing items unlock ten tiles each, and the last tile of each unlocks a merge.
TEST_P(ThreadsTest, EveryItemRunsOnceAndAfterWhatUnlocksIt) {
  BoundedScheduler scheduler(GetParam());
  EXPECT_EQ(scheduler.threads(), GetParam());
  for (const double cost : {1.0, 1e5, kHeavy}) {
    std::vector<std::atomic<int>> runs(24);
    std::atomic<int> left[2] = {10, 10};
    auto work = std::make_unique<LambdaWork>(std::vector<TestItem>{{0, cost}, {1, cost}},
                                             [&](std::int64_t id, LambdaWork::Ready ready, Pause) {
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
    BoundedScheduler scheduler(GetParam());
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
  BoundedScheduler scheduler(1);
  std::vector<std::int64_t> order;
  RunAndWait(scheduler, Simple({{0, 2 * kHeavy}, {1, 4 * kHeavy}, {2, kHeavy}, {3, 3 * kHeavy}},
                               [&](std::int64_t id) { order.push_back(id); }));
  EXPECT_THAT(order, ElementsAre(1, 3, 0, 2));
}

// A small work that comes while a huge one runs is done after one more of the huge one's items at the most.
TEST(SchedulerTest, ASmallWorkOvertakesAHugeOne) {
  BoundedScheduler scheduler(1);
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
  Await(huge_finished);
  Await(small_finished);
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
  BoundedScheduler scheduler(2);
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
    BoundedScheduler scheduler(1);
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
    BoundedScheduler scheduler(2);
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
  BoundedScheduler scheduler(2);
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
      Await(finished);
      EXPECT_EQ(uses, 1) << cost << " " << cancel;
    }
  }
}

// The only thread is busy from beginning to end: nobody's turn comes.
TEST(SchedulerTest, AWaitingWorkIsGivenBackWhenItIsCancelled) {
  absl::Notification busy, release;
  std::atomic<int> runs = 0;
  BoundedScheduler scheduler(1);
  scheduler.Submit(Simple(Items(1, kHeavy),
                          [&](std::int64_t) {
                            busy.Notify();
                            Await(release);
                          }),
                   {}, [](const Outcome& outcome) { EXPECT_TRUE(outcome.status.ok()); });
  Await(busy);
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
  BoundedScheduler scheduler(2);
  SubmitOptions options;
  scheduler.Submit(Simple(Items(10, kHeavy),
                          [&](std::int64_t) {
                            const int run = runs++;
                            running[run].Notify();
                            Await(release[run]);
                          }),
                   options, [&](const Outcome& outcome) {
                     EXPECT_EQ(outcome.status.code(), absl::StatusCode::kCancelled);
                     finished.Notify();
                   });
  for (auto& notification : running) Await(notification);
  options.cancel.Cancel();
  release[0].Notify();
  EXPECT_FALSE(finished.HasBeenNotified()) << "the other item still runs";
  release[1].Notify();
  Await(finished);
  EXPECT_EQ(runs, 2);
}

// Works that end by themselves and by cancellation at the same time, each exactly once.
TEST_P(ThreadsTest, CancellationRacesWithTheEnd) {
  constexpr int kWorks = 2000;
  std::atomic<int> finished = 0;
  {
    BoundedScheduler scheduler(GetParam());
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
  BoundedScheduler scheduler(3);
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
  for (auto& notification : both) Await(notification);
  EXPECT_EQ(runs, 500);
}

// Of the only thread's only item, which pauses until `pause` says that it is given up.
std::unique_ptr<Work> Endless(absl::Notification& begun) {
  return std::make_unique<LambdaWork>(Items(1, 1000 * kHeavy), [&begun](std::int64_t, LambdaWork::Ready, Pause pause) {
    if (!begun.HasBeenNotified()) begun.Notify();
    const Clock::time_point end = Clock::now() + std::chrono::seconds(20);
    while (pause()) {
      if (Clock::now() > end) GTEST_LOG_(FATAL) << "the item is not given up";
      std::this_thread::yield();
    }
  });
}

TEST(SchedulerTest, AnItemThatPausesSeesItsCancellationAndItsDeadline) {
  BoundedScheduler scheduler(1);
  {
    SubmitOptions options;
    absl::Notification begun, finished;
    scheduler.Submit(Endless(begun), options, [&](const Outcome& outcome) {
      EXPECT_EQ(outcome.status.code(), absl::StatusCode::kCancelled);
      finished.Notify();
    });
    Await(begun);
    options.cancel.Cancel();
    Await(finished);
  }
  SubmitOptions options;
  options.deadline = Clock::now() + std::chrono::milliseconds(20);
  absl::Notification begun;
  EXPECT_EQ(RunAndWait(scheduler, Endless(begun), options).status.code(), absl::StatusCode::kDeadlineExceeded);
}

// A short work does not wait for the end of a long item on the only thread, a long one does.
TEST(SchedulerTest, ShortItemsRunWhileALongOnePauses) {
  BoundedScheduler scheduler(1);
  SubmitOptions options;
  absl::Notification begun, finished, other_finished;
  scheduler.Submit(Endless(begun), options, [&](const Outcome&) { finished.Notify(); });
  Await(begun);
  std::atomic<int> long_runs = 0;
  scheduler.Submit(Simple(Items(1, 100 * kHeavy), [&](std::int64_t) { ++long_runs; }), {},
                   [&](const Outcome&) { other_finished.Notify(); });
  for (int i = 0; i < 20; ++i) {
    const auto tests_thread = std::this_thread::get_id();
    EXPECT_TRUE(
        RunAndWait(scheduler,
                   Simple(Items(3, kHeavy), [&](std::int64_t) { EXPECT_NE(std::this_thread::get_id(), tests_thread); }))
            .status.ok());
  }
  EXPECT_EQ(long_runs, 0);
  EXPECT_FALSE(finished.HasBeenNotified());
  options.cancel.Cancel();
  Await(finished);
  Await(other_finished);
  EXPECT_EQ(long_runs, 1);
}

// A work whose items are made when they are asked for: the scheduler holds none of them.
class CountingWork : public Work {
 public:
  CountingWork(std::int64_t items, std::atomic<std::int64_t>& runs) : left_(items), runs_(runs) {}
  double cost() const override { return kHeavy * static_cast<double>(left_); }
  std::optional<Item> Next() override {
    if (left_ == 0) return std::nullopt;
    most_taken_ = std::max(most_taken_, ++taken_);
    return Item{kHeavy, 0, 0, --left_, 0};
  }
  std::int64_t ready() const override { return left_; }
  void Run(const Item&, Arena&, Pause) override { ++runs_; }
  void Finish(const Item&) override { --taken_; }
  ~CountingWork() override { EXPECT_LE(most_taken_, 3) << "an item on each thread, and the next"; }

 private:
  std::int64_t left_;
  std::int64_t taken_ = 0;
  std::int64_t most_taken_ = 0;
  std::atomic<std::int64_t>& runs_;
};

TEST(SchedulerTest, ItemsAreTakenOneByOne) {
  BoundedScheduler scheduler(2);
  std::atomic<std::int64_t> runs = 0;
  EXPECT_TRUE(RunAndWait(scheduler, std::make_unique<CountingWork>(50000, runs)).status.ok());
  EXPECT_EQ(runs, 50000);
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
  BoundedScheduler scheduler(GetParam());
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
      Await(finished);
      EXPECT_EQ(outcome.status.code(), absl::StatusCode::kResourceExhausted) << outcome.status;
      EXPECT_LE(begun, 20);
      EXPECT_TRUE(RunAndWait(scheduler, Simple(Items(20, cost), [](std::int64_t) {})).status.ok());
      EXPECT_EQ(done, 1);
    }
  }
}

// Also where others of the work run meanwhile, and unlock more.
TEST_P(ThreadsTest, WhatItHadUnlockedIsNotBegun) {
  BoundedScheduler scheduler(GetParam());
  std::atomic<int> after{0};
  auto work = std::make_unique<LambdaWork>(std::vector<TestItem>{{0, kHeavy}},
                                           [&](std::int64_t id, LambdaWork::Ready ready, Pause) {
                                             if (id > 0) ++after;
                                             if (id == 0) ready({1, kHeavy});
                                             if (id == 0) throw std::bad_alloc();
                                           });
  EXPECT_EQ(RunAndWait(scheduler, std::move(work)).status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(after, 0);
}

}  // namespace
}  // namespace attnd::schedule
