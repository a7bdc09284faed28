// What happens while a long item pauses (scheduler.h): on one thread, and in a pause that the test decides.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "schedule/arena.h"
#include "schedule/scheduler.h"
#include "scripted.h"

namespace attnd::schedule {
namespace {

using absl::StatusCode;

constexpr double kUnit = 1 << 20;
constexpr double kHost = double{1 << 28};  // of the item that pauses
constexpr double kMost = kPauseCost;       // of an item that runs in a pause, and of all of them together

// Runs a job 'h' of one long item that calls `act`, on the only thread; `act` gets the item's pause.
void Pausing(ScriptedScheduler& scheduler, const std::function<void(Pause)>& act, double cost = kHost) {
  scheduler.Submit('h', {.costs = {cost}, .run = [&act](int, Arena&, Pause pause) { act(pause); }});
  scheduler.Wait("h");
}

TEST(PauseTest, ShortItemsRunInAPauseAndLongOnesAfterIt) {
  struct Case {
    double cost;
    bool short_enough;
  };
  for (const Case& c : std::vector<Case>{{kUnit, true}, {kMost - 1, true}, {kMost, true}, {kMost + 1, false}}) {
    ScriptedScheduler scheduler(1);
    bool ended_in_pause = false;
    Pausing(scheduler, [&](Pause pause) {
      scheduler.Submit('g', {.costs = {c.cost}});
      EXPECT_TRUE(pause());
      ended_in_pause = scheduler.Ended('g');
    });
    scheduler.Wait("g");
    EXPECT_EQ(ended_in_pause, c.short_enough) << c.cost;
    EXPECT_EQ(scheduler.Order(), "hg");
  }
}

// One with a long item does not stand in the way of one with a short item.
TEST(PauseTest, AShortItemPassesALongOne) {
  ScriptedScheduler scheduler(1);
  Pausing(scheduler, [&](Pause pause) {
    scheduler.Submit('l', {.costs = {2 * kMost}});
    scheduler.Submit('s', {.costs = {kUnit}});
    EXPECT_TRUE(pause());
    EXPECT_TRUE(scheduler.Ended('s'));
    EXPECT_FALSE(scheduler.Ended('l'));
  });
  scheduler.Wait("l");
  EXPECT_EQ(scheduler.Order(), "hsl");
}

// A pause takes in short items until together they cost as much as the time between two pauses.
TEST(PauseTest, APauseHasAnEnd) {
  for (const double cost : {kMost, kMost / 2, kMost / 4, 3 * kMost / 8}) {
    ScriptedScheduler scheduler(1);
    const auto a_pause = static_cast<std::size_t>(std::ceil(kMost / cost));
    Pausing(
        scheduler,
        [&](Pause pause) {
          for (char name = 'a'; name < 'h'; ++name) scheduler.Submit(name, {.costs = {cost}});
          for (std::size_t pauses = 1; pauses <= 3; ++pauses) {
            EXPECT_TRUE(pause());
            EXPECT_EQ(scheduler.Ends().size(), std::min<std::size_t>(7, pauses * a_pause)) << cost;
          }
        },
        double{1LL << 32});
    scheduler.Wait("abcdefg");
  }
}

// Only jobs that have received less than the one that pauses.
TEST(PauseTest, WhoHasReceivedAsMuchWaits) {
  constexpr double kCost = 4 * kUnit;
  struct Case {
    double first;
    bool runs;
  };
  for (const Case& c : std::vector<Case>{{kCost / 2, true}, {kCost - 1, true}, {kCost, false}, {3 * kCost, false}}) {
    ScriptedScheduler scheduler(1);
    scheduler.Hold();
    scheduler.Submit('g', {.costs = {c.first, kUnit}});
    std::string in_pause;
    scheduler.Submit('h', {.costs = {kCost}, .run = [&](int, Arena&, Pause pause) {
                             EXPECT_EQ(scheduler.Order(), "gh");
                             EXPECT_TRUE(pause());
                             in_pause = scheduler.Order();
                           }});
    scheduler.Release();
    scheduler.Wait("gh");
    EXPECT_EQ(in_pause, c.runs ? "ghg" : "gh") << c.first;
    EXPECT_EQ(scheduler.Order(), "ghg");
  }
}

// The item that pauses keeps what it has in its arena, and others of the same thread have another.
TEST(PauseTest, GuestsHaveAnArenaOfTheirOwn) {
  constexpr std::size_t kBytes = 4096;
  ScriptedScheduler scheduler(1);
  scheduler.Submit('h', {.costs = {kHost}, .run = [&](int, Arena& arena, Pause pause) {
                           std::byte* const block = arena.Get(kBytes);
                           std::memset(block, 1, kBytes);
                           for (const char name : {'a', 'b'}) {
                             scheduler.Submit(name, {.costs = {kUnit}, .run = [&](int, Arena& other, Pause) {
                                                       EXPECT_NE(&other, &arena);
                                                       std::memset(other.Get(kBytes), 2, kBytes);
                                                     }});
                           }
                           EXPECT_TRUE(pause());
                           EXPECT_EQ(scheduler.Ends(), "ab");
                           EXPECT_EQ(std::count(block, block + kBytes, std::byte{1}), std::ptrdiff_t{kBytes});
                         }});
  scheduler.Wait("h");
}

TEST(PauseTest, EachThreadHasAnArenaOfItsOwn) {
  ScriptedScheduler scheduler(3);
  absl::Mutex mutex;
  std::vector<Arena*> arenas;
  scheduler.Submit('a', {.costs = Times(3, kUnit), .run = [&](int, Arena& arena, Pause) {
                           absl::MutexLock lock(&mutex);
                           arenas.push_back(&arena);
                           const auto all = [&] { return arenas.size() == 3; };
                           AwaitCondition(mutex, all, "an item on each thread");
                         }});
  scheduler.Wait("a");
  std::sort(arenas.begin(), arenas.end());
  EXPECT_EQ(std::unique(arenas.begin(), arenas.end()), arenas.end());
}

// A guest that pauses takes in no guests, and goes on unless it is given up.
TEST(PauseTest, AGuestsPauseOnlyTellsWhetherItIsGivenUp) {
  for (const bool cancel : {false, true}) {
    ScriptedScheduler scheduler(1);
    Pausing(scheduler, [&](Pause pause) {
      scheduler.Submit('g', {.costs = {2 * kUnit, kUnit}, .run = [&](int, Arena&, Pause guests_pause) {
                               if (scheduler.Ended('z')) return;
                               scheduler.Submit('z', {.costs = {kUnit}});
                               EXPECT_TRUE(guests_pause());
                               EXPECT_FALSE(scheduler.Ended('z'));
                               if (!cancel) return;
                               scheduler.Cancel('g');
                               EXPECT_FALSE(guests_pause());
                               EXPECT_FALSE(scheduler.Ended('g')) << "its item still runs";
                             }});
      EXPECT_TRUE(pause()) << "it is not given up because its guest is";
      EXPECT_TRUE(scheduler.Ended('g'));
      EXPECT_TRUE(scheduler.Ended('z'));
    });
    EXPECT_EQ(scheduler.CodeOf('g'), cancel ? StatusCode::kCancelled : StatusCode::kOk);
    EXPECT_EQ(scheduler.CodeOf('h'), StatusCode::kOk);
    EXPECT_EQ(scheduler.Order(), cancel ? "hgz" : "hgzg");
  }
}

TEST(PauseTest, AGuestWithoutMemoryEndsAlone) {
  ScriptedScheduler scheduler(1);
  Pausing(scheduler, [&](Pause pause) {
    scheduler.Submit('g', {.costs = {kUnit, kUnit}, .run = [](int, Arena&, Pause) { throw std::bad_alloc(); }});
    EXPECT_TRUE(pause());
    EXPECT_EQ(scheduler.CodeOf('g'), StatusCode::kResourceExhausted);
  });
  EXPECT_EQ(scheduler.CodeOf('h'), StatusCode::kOk);
  EXPECT_EQ(scheduler.Order(), "hg");
}

// What the end of a guest's item unlocks, and jobs that come while a guest runs, are guests too.
TEST(PauseTest, GuestsBringGuests) {
  ScriptedScheduler scheduler(1);
  Pausing(scheduler, [&](Pause pause) {
    scheduler.Submit('g', {.costs = Times(3, kUnit), .width = 1, .run = [&](int item, Arena&, Pause) {
                             if (item == 1) scheduler.Submit('n', {.costs = {kUnit}});
                           }});
    EXPECT_TRUE(pause());
    EXPECT_TRUE(scheduler.Ended('g'));
    EXPECT_TRUE(scheduler.Ended('n'));
  });
}

// What the end of a guest's item, or of its job, makes ready is not short: another thread, which sleeps, runs it.
TEST(PauseTest, WhatGuestsMakeReadyRunsOnOtherThreads) {
  ScriptedScheduler scheduler(2);
  std::atomic<pid_t> other = 0;
  absl::Notification other_begun, other_returns;
  scheduler.Submit('o', {.costs = {kUnit}, .run = [&](int, Arena&, Pause) {
                           other = gettid();
                           other_begun.Notify();
                           Await(other_returns);
                         }});
  Await(other_begun);
  absl::Notification ran;
  scheduler.Submit('h', {.costs = {double{1LL << 34}}, .run = [&](int, Arena&, Pause pause) {
                           scheduler.Submit(
                               'g', {.costs = {kUnit, 2 * kMost}, .width = 1, .run = [&](int item, Arena&, Pause) {
                                       if (item == 0) {
                                         other_returns.Notify();
                                         scheduler.Wait("o");
                                         AwaitSleep(other);
                                       } else {
                                         ran.Notify();
                                       }
                                     }});
                           EXPECT_TRUE(pause());
                           Await(ran, "an item on the other thread");
                         }});
  scheduler.Wait("gh");
}

// Guests in pauses of a thread's item take no time from it: the speed that the scheduler learns is that of both.
TEST(PauseTest, TheTimeOfGuestsIsNotTheHosts) {
  constexpr double kSpeed = 1 << 26;
  ScriptedScheduler scheduler(1);
  scheduler.Submit('h', {.costs = {kSpeed}, .run = [&](int, Arena&, Pause pause) {
                           FakeClock::Advance(1);
                           for (const char name : {'a', 'b'}) {
                             scheduler.Submit(name, {.costs = {kSpeed / 8}, .per_second = kSpeed / 8});
                           }
                           EXPECT_TRUE(pause());
                           EXPECT_EQ(scheduler.Ends(), "ab");
                           scheduler.Forget('a');
                           scheduler.Submit('a', {.costs = {kSpeed / 8}, .per_second = kSpeed / 8});
                           EXPECT_TRUE(pause());
                         }});
  scheduler.Wait("h");
  // Three guests at an eighth of the speed, then the host's own second: a rate of weighted seconds (work_rate.h).
  double cost = 0, seconds = 0;
  for (const double each : {kSpeed / 8, kSpeed / 8, kSpeed / 8, kSpeed}) {
    cost = 0.75 * cost + each;
    seconds = 0.75 * seconds + 1;
  }
  const double speed = cost / seconds;
  scheduler.Hold();
  scheduler.Submit('s', {.costs = Times(8, kMost / 8)});
  const double least = (kMost + 4 * kUnit) / speed / 0.8;
  scheduler.Submit('x', {.costs = {4 * kUnit}, .time = 0.98 * least});
  scheduler.Submit('y', {.costs = {4 * kUnit}, .time = 1.02 * least});
  EXPECT_EQ(scheduler.CodeOf('x'), StatusCode::kResourceExhausted);
  EXPECT_FALSE(scheduler.Ended('y'));
  scheduler.Release();
  scheduler.Wait("sy");
}

}  // namespace
}  // namespace attnd::schedule
