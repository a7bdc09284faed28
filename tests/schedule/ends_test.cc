// The ways in which a job ends, wherever it is then (scheduler.h). After each: it is told once, nothing of it begins
// any more, its work is gone, and the threads go on with others.
#include <functional>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "schedule/scheduler.h"
#include "scripted.h"

namespace attnd::schedule {
namespace {

using absl::StatusCode;

constexpr double kUnit = 1 << 20;
constexpr double kTime = 1000;  // seconds until the deadline

enum class Way { kCancel, kCancelTwice, kDeadline, kNoMemory };

const char* NameOf(Way way) {
  const char* const names[] = {"cancelled", "cancelled twice", "late", "without memory"};
  return names[static_cast<int>(way)];
}

StatusCode CodeOf(Way way) {
  if (way == Way::kDeadline) return StatusCode::kDeadlineExceeded;
  return way == Way::kNoMemory ? StatusCode::kResourceExhausted : StatusCode::kCancelled;
}

void TakeWay(ScriptedScheduler& scheduler, Way way) {
  if (way == Way::kDeadline) FakeClock::Advance(kTime + 1);
  if (way == Way::kNoMemory) throw std::bad_alloc();
  if (way == Way::kCancel || way == Way::kCancelTwice) scheduler.Cancel('v');
  if (way == Way::kCancelTwice) scheduler.Cancel('v');
}

// Jobs of some size, of which one part of the items waits for another.
struct Size {
  const char* name;
  double cost;  // of an item
  int items;
};
const Size kSizes[] = {{"small", kUnit, 6}, {"in turns", 16 * kUnit, 6}};
const std::int64_t kWidths[] = {1, 2, 100};

// Each job afterwards is computed: small ones, and such as take turns.
void ExpectGoesOn(ScriptedScheduler& scheduler, const std::string& where) {
  scheduler.Submit('x', {.costs = Times(4, kUnit), .width = 1});
  scheduler.Submit('y', {.costs = Times(4, 16 * kUnit)});
  scheduler.Submit('z', {.costs = Times(2, 1)});
  scheduler.Wait("xyz");
  for (const char name : {'x', 'y', 'z'}) EXPECT_TRUE(scheduler.Of(name).status.ok()) << where;
  EXPECT_EQ(scheduler.Use().waiting, 0) << where;
}

// What became of job 'v', of which `begun` items had begun.
void ExpectEnd(ScriptedScheduler& scheduler, Way way, std::size_t begun, const std::string& where) {
  scheduler.Wait("v");
  EXPECT_EQ(scheduler.CodeOf('v'), CodeOf(way)) << where << ": " << scheduler.Of('v').status;
  ExpectGoesOn(scheduler, where);
  const std::string order = scheduler.Order();
  EXPECT_EQ(static_cast<std::size_t>(std::count(order.begin(), order.end(), 'v')), begun) << where << ": " << order;
}

// While the only thread is held: in the queue as a small job, computed in turn, or waiting behind one that is.
TEST(EndsTest, OfAJobThatHasNotBegun) {
  for (const Way way : {Way::kCancel, Way::kCancelTwice, Way::kDeadline}) {
    for (const Size& size : kSizes) {
      for (const std::int64_t width : kWidths) {
        for (const int before : {0, 1, 2}) {
          const std::string where = absl::StrCat(NameOf(way), ", ", size.name, ", width ", width, ", behind ", before);
          ScriptedScheduler scheduler(1);
          scheduler.Hold();
          for (int i = 0; i < before; ++i)
            scheduler.Submit(static_cast<char>('a' + i), {.costs = Times(6, 16 * kUnit)});
          scheduler.Submit('v', {.costs = Times(size.items, size.cost), .width = width, .time = kTime});
          const std::int64_t waiting = scheduler.Use().waiting;
          TakeWay(scheduler, way);
          if (way != Way::kDeadline) {
            EXPECT_TRUE(scheduler.Ended('v')) << where << ": not before Cancel returns";
            EXPECT_EQ(scheduler.Use().waiting, size.cost > kUnit && before > 0 ? waiting - 1 : waiting) << where;
          }
          scheduler.Release();
          ExpectEnd(scheduler, way, 0, where);
          EXPECT_EQ(scheduler.Use().expired, way == Way::kDeadline ? 1 : 0) << where;
          for (int i = 0; i < before; ++i) {
            const char name = static_cast<char>('a' + i);
            scheduler.Wait({name});
            EXPECT_TRUE(scheduler.Of(name).status.ok()) << where;
          }
        }
      }
    }
  }
}

// As the RPC library does: it cancels a call when its deadline has passed. What had not begun has expired.
TEST(EndsTest, OfAJobThatIsCancelledAfterItsDeadline) {
  for (const bool began : {false, true}) {
    for (const double late : {-1.0, 0.0, 1.0}) {
      for (const Size& size : kSizes) {
        ScriptedScheduler scheduler(1);
        if (!began) scheduler.Hold();
        absl::Notification begun, release;
        scheduler.Submit('v', {.costs = Times(size.items, size.cost), .time = kTime, .run = [&](int, Arena&, Pause) {
                                 begun.Notify();
                                 Await(release);
                               }});
        if (began) Await(begun);
        FakeClock::Advance(kTime + late);
        scheduler.Cancel('v');
        release.Notify();
        if (!began) scheduler.Release();
        scheduler.Wait("v");
        EXPECT_EQ(scheduler.CodeOf('v'), StatusCode::kCancelled);
        EXPECT_EQ(scheduler.Use().expired, !began && late >= 0 ? 1 : 0) << size.name << ", " << late;
      }
    }
  }
}

// In its second item, on a pool thread: what it would unlock is not begun.
TEST(EndsTest, OfAJobWithARunningItem) {
  for (const Way way : {Way::kCancel, Way::kCancelTwice, Way::kDeadline, Way::kNoMemory}) {
    for (const Size& size : kSizes) {
      for (const std::int64_t width : kWidths) {
        for (const bool others : {false, true}) {
          const std::string where = absl::StrCat(NameOf(way), ", ", size.name, ", width ", width, ", others ", others);
          ScriptedScheduler scheduler(1);
          scheduler.Hold();
          scheduler.Submit('v', {.costs = Times(size.items, size.cost),
                                 .width = width,
                                 .time = kTime,
                                 .run = [&](int item, Arena&, Pause) {
                                   if (item == 1) TakeWay(scheduler, way);
                                 }});
          if (others) scheduler.Submit('a', {.costs = Times(20, kUnit)});
          if (others) scheduler.Submit('b', {.costs = Times(20, 16 * kUnit)});
          scheduler.Release();
          ExpectEnd(scheduler, way, 2, where);
          if (others) scheduler.Wait("ab");
          EXPECT_EQ(scheduler.Use().expired, 0) << where << ": it had begun";
        }
      }
    }
  }
}

// In a pause of its item, which returns then; and after a guest of that pause.
TEST(EndsTest, OfAJobThatPauses) {
  for (const Way way : {Way::kCancel, Way::kCancelTwice, Way::kDeadline, Way::kNoMemory}) {
    for (const bool guest : {false, true}) {
      const std::string where = absl::StrCat(NameOf(way), ", guest ", guest);
      ScriptedScheduler scheduler(1);
      scheduler.Submit('v', {.costs = {1000 * kUnit, kUnit}, .time = kTime, .run = [&](int, Arena&, Pause pause) {
                               EXPECT_TRUE(pause());
                               if (!guest) TakeWay(scheduler, way);
                               if (guest) {
                                 scheduler.Submit('g', {.costs = {kUnit, kUnit}, .run = [&](int item, Arena&, Pause) {
                                                          if (item == 0 && way != Way::kNoMemory)
                                                            TakeWay(scheduler, way);
                                                        }});
                               }
                               const bool goes_on = pause();
                               if (guest && way == Way::kNoMemory) throw std::bad_alloc();
                               // A deadline is looked at before guests run.
                               EXPECT_FALSE(goes_on && !(guest && way == Way::kDeadline)) << where;
                               EXPECT_FALSE(pause()) << where;
                             }});
      ExpectEnd(scheduler, way, 1, where);
      if (guest) {
        scheduler.Wait("g");
        EXPECT_TRUE(scheduler.Of('g').status.ok());
      }
    }
  }
}

// On the submitting thread, between two items and in a pause.
TEST(EndsTest, OfAJobOnTheSubmittingThread) {
  for (const Way way : {Way::kCancel, Way::kCancelTwice, Way::kDeadline, Way::kNoMemory}) {
    for (const double later : {1.0, kUnit}) {  // cost of the items behind it
      const std::string where = absl::StrCat(NameOf(way), ", then ", later);
      ScriptedScheduler scheduler(1);
      std::vector<double> costs = Times(5, later);
      costs[0] = costs[1] = 1;
      scheduler.Submit('v', {.costs = costs, .width = 1, .time = kTime, .run = [&](int item, Arena&, Pause pause) {
                               EXPECT_TRUE(pause());
                               if (item == 0) return;
                               TakeWay(scheduler, way);
                               EXPECT_FALSE(pause()) << where;
                             }});
      ExpectEnd(scheduler, way, 2, where);
    }
  }
}

// After a turn, while it waits for the next.
TEST(EndsTest, OfAJobThatWaitsForItsNextTurn) {
  const int callers[2] = {};
  for (const Way way : {Way::kCancel, Way::kDeadline}) {
    ScriptedScheduler scheduler(1);
    scheduler.Hold();
    scheduler.Submit('v', {.costs = Times(40, 64 * kUnit), .caller = &callers[0], .time = kTime});
    scheduler.Submit('b', {.costs = Times(40, 64 * kUnit), .caller = &callers[1], .run = [&](int item, Arena&, Pause) {
                             if (item != 2) return;
                             EXPECT_EQ(scheduler.Use().waiting, 1);
                             TakeWay(scheduler, way);
                             if (way == Way::kCancel) {
                               EXPECT_TRUE(scheduler.Ended('v'));
                               EXPECT_EQ(scheduler.Use().waiting, 0);
                             }
                           }});
    scheduler.Release();
    scheduler.Wait("b");
    ExpectEnd(scheduler, way, 16, NameOf(way));
    EXPECT_TRUE(scheduler.Of('b').status.ok());
    EXPECT_EQ(scheduler.Use().expired, 0) << "it had begun";
  }
}

// Two threads run its items when it is given up, and one of them goes on with others while the other runs.
TEST(EndsTest, OfAJobWithItemsOnTwoThreads) {
  for (const Way way : {Way::kCancel, Way::kDeadline, Way::kNoMemory}) {
    for (const Size& size : kSizes) {
      for (const std::int64_t width : {2, 100}) {
        const std::string where = absl::StrCat(NameOf(way), ", ", size.name, ", width ", width);
        absl::Notification runs[2], returns[2];
        ScriptedScheduler scheduler(2);
        scheduler.Submit(
            'v',
            {.costs = Times(size.items, size.cost), .width = width, .time = kTime, .run = [&](int item, Arena&, Pause) {
               if (item > 1) return;
               runs[item].Notify();
               Await(returns[item]);
               if (item == 0 && way == Way::kNoMemory) throw std::bad_alloc();
             }});
        Await(runs[0], where);
        Await(runs[1], where);
        if (way != Way::kNoMemory) TakeWay(scheduler, way);
        returns[0].Notify();
        ExpectGoesOn(scheduler, where);
        for (const char name : {'x', 'y', 'z'}) scheduler.Forget(name);
        EXPECT_FALSE(scheduler.Ended('v')) << where << ": an item still runs";
        returns[1].Notify();
        ExpectEnd(scheduler, way, 2, where);
      }
    }
  }
}

// With a token that is cancelled before it comes, or a deadline that has passed.
TEST(EndsTest, OfAJobThatIsOverWhenItComes) {
  for (const double cost : {1.0, kUnit, 1000 * kUnit}) {
    ScriptedScheduler scheduler(1);
    BoundedScheduler other(1);
    SubmitOptions options;
    options.cancel.Cancel();
    int told = 0;
    int items = 0;
    other.Submit(std::make_unique<ScriptedWork>(Script{.costs = Times(3, cost)}, [&](int) { ++items; }), options,
                 [&](const Outcome& outcome) {
                   EXPECT_EQ(outcome.status.code(), StatusCode::kCancelled);
                   ++told;
                 });
    EXPECT_EQ(told, 1) << "not before Submit returns";
    EXPECT_EQ(items, 0);

    Script late{.costs = Times(3, cost), .time = 0};
    late.done = [](const Outcome&) {};
    FakeClock::Advance(1);
    scheduler.Hold();
    scheduler.Submit('v', late);
    FakeClock::Advance(1);
    scheduler.Release();
    if (cost > 1) ExpectEnd(scheduler, Way::kDeadline, 0, absl::StrCat(cost));
  }
}

// Ends of all kinds leave the estimates as if the job had never been: see queue_test.cc.

// The destructor waits for the last job, and ends with it: on a pool thread, or on one that cancels it.
TEST(EndsTest, OfTheScheduler) {
  for (const bool cancel : {false, true}) {
    absl::Notification begun, release, told, return_of_done;
    auto scheduler = std::make_unique<BoundedScheduler>(1);
    SubmitOptions options;
    const auto work = [&] {
      return std::make_unique<ScriptedWork>(Script{.costs = {kUnit},
                                                   .run =
                                                       [&](int, Arena&, Pause) {
                                                         begun.Notify();
                                                         Await(release);
                                                       }},
                                            [](int) {});
    };
    scheduler->Submit(work(), {}, [](const Outcome&) {});
    Await(begun);
    std::thread canceller;
    if (cancel) {
      scheduler->Submit(std::make_unique<ScriptedWork>(Script{.costs = {kUnit}}, [](int) {}), options,
                        [&](const Outcome&) {
                          told.Notify();
                          Await(return_of_done);
                        });
      canceller = std::thread([&options] { options.cancel.Cancel(); });
      Await(told);
      release.Notify();
    }
    // The last job is one whose item runs, or whose `done` has not returned on another thread.
    scheduler->EndAfter([&] { cancel ? return_of_done.Notify() : release.Notify(); });
    if (canceller.joinable()) canceller.join();
  }
}

}  // namespace
}  // namespace attnd::schedule
