// Each allocation on the submitting thread fails once: a job is told its end, once, and what was begun is undone.
#include <cstdint>
#include <deque>
#include <memory>
#include <new>
#include <utility>

#include "../support/nth_allocation.h"
#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "schedule/intake_line.h"
#include "schedule/scheduler.h"
#include "schedule/turns.h"
#include "scripted.h"

namespace attnd::schedule {
namespace {

constexpr double kUnit = 1 << 20;

struct Job {
  std::shared_ptr<int> held = std::make_shared<int>();
  std::atomic<int> told = 0;
  Outcome outcome;
  absl::Notification ended;
};

TEST(SchedulerWithoutMemory, EachJobIsToldItsEnd) {
  for (const double cost : {1.0, kUnit, 16 * kUnit}) {
    for (std::int64_t number = 1;; ++number) {
      ASSERT_LT(number, 1000);
      BoundedScheduler scheduler(2);
      Job job;
      const std::weak_ptr<int> watched = job.held;
      auto work = std::make_unique<ScriptedWork>(Script{.costs = Times(6, cost), .width = 2},
                                                 [held = std::exchange(job.held, nullptr)](int) {});
      SubmitOptions options;
      std::function<void(const Outcome&)> done = [&job, &watched](const Outcome& outcome) {
        EXPECT_TRUE(watched.expired());
        job.outcome = outcome;
        ++job.told;
        job.ended.Notify();
      };
      test::FailNthAllocation(number);
      scheduler.Submit(std::move(work), std::move(options), std::move(done));
      const bool failed = test::StopFailingAllocations();
      Await(job.ended, "the end of a job without memory");
      EXPECT_EQ(job.told, 1);
      EXPECT_EQ(job.outcome.status.code(), failed ? absl::StatusCode::kResourceExhausted : absl::StatusCode::kOk)
          << cost << ", allocation " << number;
      EXPECT_EQ(scheduler.GetQueueUse().waiting, 0);
      absl::Notification next;
      scheduler.Submit(std::make_unique<ScriptedWork>(Script{.costs = Times(6, cost)}, [](int) {}), {},
                       [&next](const Outcome& outcome) {
                         EXPECT_TRUE(outcome.status.ok());
                         next.Notify();
                       });
      Await(next, "the end of the next job");
      if (!failed) break;
    }
  }
}

struct Entry : IntakeEntry {};

TEST(IntakeLineWithoutMemory, JoiningChangesNothing) {
  const int callers[3] = {};
  for (std::int64_t number = 1;; ++number) {
    ASSERT_LT(number, 1000);
    IntakeLine line({.places = 1, .per_caller = 2});
    const Clock::time_point now(std::chrono::seconds(1000)), never = Clock::time_point::max();
    TooLong too_long;
    std::deque<Entry> entries(5);
    bool threw = false;
    std::size_t joined = 0;
    test::FailNthAllocation(number);
    try {
      for (; joined < entries.size(); ++joined) {
        line.Join(entries[joined], &callers[joined % 3], never, now, too_long);
      }
    } catch (const std::bad_alloc&) {
      threw = true;
    }
    test::StopFailingAllocations();
    EXPECT_EQ(line.receiving(), joined > 0 ? 1 : 0) << number;
    EXPECT_EQ(line.waiting(), joined > 0 ? joined - 1 : 0) << number;
    // The failed one may join again, and all are received.
    for (; joined < entries.size(); ++joined) line.Join(entries[joined], &callers[joined % 3], never, now, too_long);
    std::optional<TooLong> late;
    IntakeEntry* received = &entries[0];
    for (std::size_t i = 1; i < entries.size(); ++i) {
      line.Leave(*received, now);
      received = line.Take(now, late);
      ASSERT_NE(received, nullptr) << number;
    }
    line.Leave(*received, now);
    EXPECT_EQ(line.waiting(), 0U);
    EXPECT_EQ(line.receiving(), 0);
    if (!threw) break;
  }
}

TEST(TurnsWithoutMemory, JoiningChangesNothing) {
  const int callers[2] = {};
  for (std::int64_t number = 1;; ++number) {
    ASSERT_LT(number, 1000);
    Turns turns(100);
    std::deque<Turn> all(4);
    bool threw = false;
    test::FailNthAllocation(number);
    std::size_t joined = 0;
    try {
      for (; joined < all.size(); ++joined) {
        all[joined].caller = &callers[joined % 2];
        all[joined].sequence = joined;
        all[joined].left = 10;
        turns.Join(&all[joined]);
      }
    } catch (const std::bad_alloc&) {
      threw = true;
    }
    test::StopFailingAllocations();
    for (; joined < all.size(); ++joined) {
      all[joined].left = 10;
      all[joined].sequence = joined;
      all[joined].caller = &callers[joined % 2];
      turns.Join(&all[joined]);
    }
    test::FailNthAllocation(1, true);  // waiting and serving allocate nothing
    for (Turn& turn : all) turns.Wait(&turn);
    for (std::size_t i = 0; i < all.size(); ++i) {
      Turn* const turn = turns.Take();
      if (turn == nullptr) break;
      turns.Charge(turn, turn->left);
      turns.Leave(turn);
    }
    EXPECT_FALSE(test::StopFailingAllocations());
    EXPECT_TRUE(turns.empty());
    if (!threw) break;
  }
}

}  // namespace
}  // namespace attnd::schedule
