// What is refused, what expires, and what is counted (scheduler.h), with a clock that the tests move.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <limits>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "schedule/scheduler.h"
#include "schedule/work_rate.h"
#include "scripted.h"

namespace attnd::schedule {
namespace {

using absl::StatusCode;

constexpr double kSpeed = 1 << 26;         // cost per second, of one thread
constexpr double kTurn = double{1 << 30};  // 16 seconds
constexpr double kInf = std::numeric_limits<double>::infinity();
const int kCallers[4] = {};

// One that stands before the job in question.
struct Other {
  double cost;
  int caller = 1;
  double time = -1;  // until its deadline; none if negative
};

// By the rules in scheduler.h: whether a job of caller 0 is accepted with `time` seconds left, if `computed` is being
// computed, `waiting` waits and `small` is left of small jobs.
struct Queue {
  std::vector<Other> computed = {}, waiting = {};
  double small = 0;

  double Before(double own, double time) const {
    if (own <= kSmallWork) return small;
    const double until = 2 * time;  // jobs that are due much later can wait
    const auto first = [until](const Other& other) {
      return other.caller == 0 && (other.time < 0 ? kInf : other.time) <= until;
    };
    double before = small;
    for (const Other& other : computed) {
      before += first(other) ? other.cost : std::min(other.cost, own + kTurn);
    }
    double of_caller = 0, of_others = 0;
    std::set<int> callers;
    for (const Other& other : waiting) {
      if (first(other)) of_caller += other.cost;
      if (other.caller != 0) of_others += other.cost, callers.insert(other.caller);
    }
    const double each = of_caller + own + kTurn;
    return before + of_caller + std::min(of_others, static_cast<double>(callers.size()) * each);
  }
  // Negative: accepted; the distance from the border, as a share of what can be computed in time.
  double Margin(double own, double time) const {
    const double enough = 0.8 * time * kSpeed;
    const double before = Before(own, time);
    if (before < std::max(1.0, 0.05 * enough)) return -kInf;
    return (before + own) / enough - 1;
  }
};

Script Of(const Other& other, int items) {
  return {.costs = Times(items, other.cost / items), .caller = &kCallers[other.caller], .time = other.time};
}

// Submits a job that is to be refused or not, and takes it back.
Outcome Try(ScriptedScheduler& scheduler, double own, double time, const void* caller) {
  scheduler.Submit('t', {.costs = Times(8, own / 8), .caller = caller, .time = time});
  const bool accepted = !scheduler.Ended('t');
  if (accepted) scheduler.Cancel('t');
  scheduler.Wait("t");
  Outcome outcome = scheduler.Of('t');
  if (accepted) outcome.status = absl::OkStatus();
  scheduler.Forget('t');
  return outcome;
}

// Jobs of each kind before one with each time: on both sides of the border, as near as a hundredth.
TEST(QueueTest, AJobIsRefusedIfWhatIsBeforeItTakesTooLong) {
  const std::vector<Queue> queues = {
      {},
      {.small = kSmallWork / 4},
      {.computed = {{kTurn / 4}}},
      {.computed = {{4 * kTurn}}},
      {.computed = {{4 * kTurn, 0, 85}}},
      {.computed = {{4 * kTurn, 0}}, .small = kSmallWork},
      {.computed = {{kTurn / 4}}, .waiting = {{kTurn / 2}, {kTurn / 2, 2}}},
      {.computed = {{kTurn / 4}}, .waiting = {{4 * kTurn}, {4 * kTurn, 2}}},
      {.computed = {{kTurn / 4}}, .waiting = {{4 * kTurn}, {kTurn, 1}, {kTurn, 0, 100}, {kTurn, 0}}},
      {.computed = {{kTurn / 4}}, .waiting = {{4 * kTurn, 2}, {kTurn, 0, 150}, {kTurn, 0, 200}}},
  };
  for (std::size_t q = 0; q < queues.size(); ++q) {
    const Queue& queue = queues[q];
    ScriptedScheduler scheduler(1);
    scheduler.Learn(kSpeed);
    scheduler.Hold();
    std::string names;
    for (const std::vector<Other>* others : {&queue.computed, &queue.waiting}) {
      for (const Other& other : *others) {
        names += static_cast<char>('a' + names.size());
        scheduler.Submit(names.back(), Of(other, 16));
      }
    }
    if (queue.small > 0) scheduler.Submit('s', {.costs = Times(4, queue.small / 4), .caller = &kCallers[3]});
    ASSERT_EQ(scheduler.Use().waiting, static_cast<std::int64_t>(queue.waiting.size())) << "queue " << q;
    ASSERT_EQ(scheduler.Use().refused, 0);
    std::int64_t refused = 0, accepted = 0;
    for (const double own : {kSmallWork, 2 * kSmallWork, 2 * kTurn}) {
      for (double time = 0.01; time < 1000; time *= 1.013) {
        const double margin = queue.Margin(own, time);
        if (std::abs(margin) < 0.001) continue;
        const Outcome outcome = Try(scheduler, own, time, &kCallers[0]);
        margin > 0 ? ++refused : ++accepted;
        ASSERT_EQ(outcome.status.code(), margin > 0 ? StatusCode::kResourceExhausted : StatusCode::kOk)
            << "queue " << q << ", cost " << own << ", " << time << " seconds";
        ASSERT_EQ(scheduler.Use().refused, refused);
        const double estimate = margin > 0 ? (queue.Before(own, time) + own) / kSpeed : 0;
        const double come_back = margin > 0 ? std::clamp(estimate - 0.8 * time, 0.01, 30.0) : 0;
        ASSERT_NEAR(absl::ToDoubleSeconds(outcome.estimate), estimate, 1e-6 * estimate);
        ASSERT_NEAR(absl::ToDoubleSeconds(outcome.come_back), come_back, 1e-6 * come_back);
      }
    }
    EXPECT_GT(accepted, 0);
    EXPECT_TRUE(refused > 0 || q == 0);
    EXPECT_EQ(scheduler.Use().expired, 0);
    for (const char name : names) scheduler.Cancel(name);
  }
}

// Without a deadline, it may wait for max_wait; its own cost makes no difference.
TEST(QueueTest, WithoutADeadlineAJobMayWaitForMaxWait) {
  constexpr double kMaxWait = 10;
  for (const double before : {0.04, 0.06, 0.5, 0.99, 1.01, 3.0}) {  // of max_wait
    for (const int caller : {0, 1}) {
      ScriptedScheduler scheduler(1, FakeClock::Of(kMaxWait));
      scheduler.Learn(kSpeed);
      scheduler.Hold();
      scheduler.Submit('a', Of({before * kMaxWait * kSpeed, caller}, 16));
      const Outcome outcome = Try(scheduler, kTurn, -1, &kCallers[0]);
      // Of another caller's job, at most as much as of its own and a turn is before it: all.
      EXPECT_EQ(outcome.status.code(), before > 1 ? StatusCode::kResourceExhausted : StatusCode::kOk) << before;
      if (before > 1) {
        EXPECT_NEAR(absl::ToDoubleSeconds(outcome.estimate), before * kMaxWait, 1e-3);
        EXPECT_NEAR(absl::ToDoubleSeconds(outcome.come_back), (before - 1) * kMaxWait, 1e-3);
      }
      scheduler.Cancel('a');
    }
  }
  // Without such a limit it waits for as long as it takes.
  ScriptedScheduler scheduler(1);
  scheduler.Learn(kSpeed);
  scheduler.Hold();
  scheduler.Submit('a', Of({1000 * kTurn}, 16));
  EXPECT_TRUE(Try(scheduler, kTurn, -1, &kCallers[0]).status.ok());
  scheduler.Cancel('a');
}

TEST(QueueTest, WithoutAnEstimateNothingIsRefused) {
  for (const bool tells_speed : {false, true}) {
    ScriptedScheduler scheduler(1);
    scheduler.Submit('?', {.costs = {kSpeed}, .per_second = kSpeed, .tells_speed = tells_speed});
    scheduler.Wait("?");
    scheduler.Hold();
    scheduler.Submit('a', Of({kTurn}, 16));
    EXPECT_EQ(Try(scheduler, kTurn, 1, &kCallers[0]).status.ok(), !tells_speed);
    scheduler.Cancel('a');
  }
}

// The speed of all threads together.
TEST(QueueTest, MoreThreadsAreFaster) {
  for (const int threads : {1, 3}) {
    ScriptedScheduler scheduler(threads);
    scheduler.Learn(kSpeed);
    std::vector<absl::Notification> begun(static_cast<std::size_t>(threads));
    absl::Notification release;
    scheduler.Submit('!', {.costs = Times(threads, kTurn), .tells_speed = false, .run = [&](int item, Arena&, Pause) {
                             begun[static_cast<std::size_t>(item)].Notify();
                             Await(release);
                           }});
    for (const absl::Notification& one : begun) Await(one);
    scheduler.Submit('a', {.costs = Times(16, kTurn / 16), .caller = &kCallers[1]});
    const double least = (kTurn + kTurn / 2) / kSpeed / 0.8 / threads;
    EXPECT_TRUE(Try(scheduler, kTurn / 2, 1.01 * least, &kCallers[0]).status.ok()) << threads;
    EXPECT_FALSE(Try(scheduler, kTurn / 2, 0.99 * least, &kCallers[0]).status.ok()) << threads;
    scheduler.Cancel('a');
    release.Notify();
  }
}

// What stands before a job is what is left, as it is computed and as it ends in whatever way.
TEST(QueueTest, WhatIsComputedNoLongerStandsBefore) {
  ScriptedScheduler scheduler(1);
  scheduler.Learn(kSpeed);
  absl::Notification half, release;
  scheduler.Submit('s', {.costs = Times(8, kSmallWork / 8), .tells_speed = false, .run = [&](int item, Arena&, Pause) {
                           if (item != 3) return;
                           half.Notify();
                           Await(release);
                         }});
  Await(half);
  const auto least_is = [&](double cost) {
    const double least = cost / kSpeed / 0.8;
    return Try(scheduler, kSmallWork, 1.01 * least, nullptr).status.ok() &&
           !Try(scheduler, kSmallWork, 0.99 * least, nullptr).status.ok();
  };
  EXPECT_TRUE(least_is(1.5 * kSmallWork));
  scheduler.Submit('a', {.costs = Times(4, kSmallWork / 4)});
  EXPECT_TRUE(least_is(2.5 * kSmallWork));
  scheduler.Cancel('a');
  EXPECT_TRUE(least_is(1.5 * kSmallWork));
  scheduler.Cancel('s');
  scheduler.Submit('b', {.costs = Times(4, kSmallWork / 4)});
  EXPECT_TRUE(least_is(2 * kSmallWork));
  scheduler.Submit('c', {.costs = Times(4, kTurn)});
  EXPECT_TRUE(least_is(2 * kSmallWork)) << "jobs in turns are not before small ones";
  scheduler.Cancel('b');
  scheduler.Cancel('c');
  EXPECT_TRUE(Try(scheduler, kSmallWork, 0.001, nullptr).status.ok()) << "nothing is before it";
  release.Notify();
}

// A job begins at its turn only if it can still be done in time; half of what its answer needs may be gone.
TEST(QueueTest, AJobThatIsTooLateAtItsTurnDoesNotBegin) {
  constexpr double kJobCost = kTurn, kTime = 100;
  constexpr double kBorder = kTime - 0.1 * kTime - kJobCost / kSpeed;
  for (const double passed : {0.0, kBorder - 0.1, kBorder + 0.1, kTime - 0.1, kTime + 0.1}) {
    for (const bool others : {false, true}) {
      ScriptedScheduler scheduler(1);
      scheduler.Learn(kSpeed);
      scheduler.Hold();
      scheduler.Submit('a', Of({kTurn, 1}, 4));
      scheduler.Submit('b', Of({kJobCost, 0, kTime}, 4));
      if (others) scheduler.Submit('c', Of({kTurn, 2}, 4));
      ASSERT_EQ(scheduler.Use().waiting, others ? 2 : 1);
      FakeClock::Advance(passed);
      scheduler.Cancel('a');
      scheduler.Release();
      scheduler.Wait(others ? "abc" : "ab");
      const bool begins = passed <= (others ? kBorder : kTime);
      EXPECT_EQ(scheduler.CodeOf('b'), begins ? StatusCode::kOk : StatusCode::kDeadlineExceeded) << passed;
      EXPECT_EQ(scheduler.Order().find('b') != std::string::npos, begins) << passed;
      EXPECT_EQ(scheduler.Use().expired, begins ? 0 : 1) << passed;
      EXPECT_EQ(scheduler.Use().refused, 0);
      EXPECT_EQ(scheduler.Use().waiting, 0);
    }
  }
}

TEST(QueueTest, WithoutADeadlineAJobHasWaitedInVainAfterMaxWait) {
  constexpr double kMaxWait = 10;
  for (const double passed : {0.0, kMaxWait, kMaxWait + 0.001, 3 * kMaxWait}) {
    ScriptedScheduler scheduler(1, FakeClock::Of(kMaxWait));
    scheduler.Hold();
    scheduler.Submit('a', Of({kTurn, 1}, 4));
    scheduler.Submit('b', Of({kTurn, 0}, 4));
    FakeClock::Advance(passed);
    scheduler.Release();
    scheduler.Wait("ab");
    const bool begins = passed <= kMaxWait;
    EXPECT_EQ(scheduler.CodeOf('a'), StatusCode::kOk) << "it had begun";
    EXPECT_EQ(scheduler.CodeOf('b'), begins ? StatusCode::kOk : StatusCode::kResourceExhausted) << passed;
    EXPECT_EQ(scheduler.Use().expired, begins ? 0 : 1);
    const Outcome outcome = scheduler.Of('b');
    EXPECT_NEAR(absl::ToDoubleSeconds(outcome.estimate), begins ? 0 : passed, 1e-6);
    EXPECT_NEAR(absl::ToDoubleSeconds(outcome.come_back), begins ? 0 : 0.01, 1e-6);
  }
}

TEST(QueueTest, AJobThatHasBegunIsNotTooLateForItsNextTurn) {
  constexpr double kMaxWait = 10;
  const int callers[2] = {};
  ScriptedScheduler scheduler(1, FakeClock::Of(kMaxWait));
  scheduler.Hold();
  scheduler.Submit('a', {.costs = Times(80, kTurn / 32), .caller = &callers[0]});
  scheduler.Submit('b', {.costs = Times(80, kTurn / 32), .caller = &callers[1], .run = [](int item, Arena&, Pause) {
                           if (item == 0) FakeClock::Advance(2 * kMaxWait);  // while the first waits again
                         }});
  scheduler.Release();
  scheduler.Wait("ab");
  EXPECT_TRUE(scheduler.Of('a').status.ok());
  EXPECT_TRUE(scheduler.Of('b').status.ok());
}

TEST(QueueTest, OutcomesTellTheTimes) {
  ScriptedScheduler scheduler(1);
  for (const double cost : {kSmallWork / 4, kTurn}) {
    scheduler.Hold();
    scheduler.Submit('a', {.costs = Times(2, cost), .run = [](int, Arena&, Pause) { FakeClock::Advance(2); }});
    FakeClock::Advance(3);
    scheduler.Release();
    scheduler.Wait("a");
    EXPECT_EQ(scheduler.Of('a').queued, absl::Seconds(3));
    EXPECT_EQ(scheduler.Of('a').computed, absl::Seconds(4));
    scheduler.Forget('a');
  }
  scheduler.Submit('a', {.costs = Times(2, 1), .run = [](int, Arena&, Pause) { FakeClock::Advance(2); }});
  EXPECT_EQ(scheduler.Of('a').queued, absl::ZeroDuration());
  EXPECT_EQ(scheduler.Of('a').computed, absl::Seconds(4));
  scheduler.Hold();
  scheduler.Submit('b', {.costs = {kTurn}});
  FakeClock::Advance(3);
  scheduler.Cancel('b');
  EXPECT_EQ(scheduler.Of('b').queued, absl::Seconds(3));
  EXPECT_EQ(scheduler.Of('b').computed, absl::ZeroDuration());
}

// A moving average over four seconds, unknown until it has seen a fiftieth of one.
TEST(WorkRateTest, FollowsTheLastSeconds) {
  WorkRate rate;
  EXPECT_EQ(rate.per_second(), 0);
  rate.Add(100, 0.019);
  EXPECT_EQ(rate.per_second(), 0);
  rate.Add(0, 0.0011);
  EXPECT_NEAR(rate.per_second(), 100 / 0.02, 100);
  for (int i = 0; i < 2000; ++i) rate.Add(30, 0.01);
  EXPECT_NEAR(rate.per_second(), 3000, 1);
  for (int i = 0; i < 100; ++i) rate.Add(90, 0.01);
  EXPECT_NEAR(rate.per_second(), 3000 + 6000 * (1 - std::exp(-0.25)), 10);
  rate.Add(4000, 4);
  EXPECT_NEAR(rate.per_second(), 1000, 1) << "what was before is forgotten";
  rate.Add(7 * 400, 400);
  EXPECT_NEAR(rate.per_second(), 7, 1e-6);
}

// Cancellations, ends and expiries at once: each is told once, and the scheduler goes on.
TEST(QueueTest, AllAreToldWhateverHappens) {
  const int callers[5] = {};
  BoundedScheduler scheduler(3, std::chrono::milliseconds(40));
  absl::Mutex mutex;
  int told = 0;
  std::vector<SubmitOptions> options;
  for (int id = 0; id < 300; ++id) {
    SubmitOptions one;
    one.caller = &callers[id % 5];
    if (id % 3 == 0) one.deadline = Clock::now() + std::chrono::milliseconds(id % 37);
    options.push_back(one);
    Script script{.costs = Times(9 + id % 11, 1 << 22),
                  .run = [](int, Arena&, Pause) { absl::SleepFor(absl::Microseconds(100)); }};
    scheduler.Submit(std::make_unique<ScriptedWork>(std::move(script), [](int) {}), one, [&](const Outcome&) {
      absl::MutexLock lock(&mutex);
      ++told;
    });
    if (id % 4 == 0) options[static_cast<std::size_t>(id) / 2].cancel.Cancel();
  }
  absl::MutexLock lock(&mutex);
  const auto all_told = [&told] { return told == 300; };
  AwaitCondition(mutex, all_told, "the end of all jobs");
  EXPECT_EQ(scheduler.GetQueueUse().waiting, 0);
}

}  // namespace
}  // namespace attnd::schedule
