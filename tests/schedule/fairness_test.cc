// Who gets the threads (scheduler.h): with one thread that is held until all jobs are there, the order of items follows
// from their costs alone.
#include <algorithm>
#include <cstddef>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "schedule/scheduler.h"
#include "scripted.h"

namespace attnd::schedule {
namespace {

using ::testing::StartsWith;

constexpr double kUnit = 1 << 20;          // never run on the submitting thread
constexpr double kTurn = double{1 << 30};  // of cost: what a caller gets at a time, per thread

// "A64 B64 A8": how many items of a job follow each other.
std::string Runs(const std::string& order) {
  std::string runs;
  for (std::size_t i = 0; i < order.size();) {
    const std::size_t end = std::min(order.find_first_not_of(order[i], i), order.size());
    absl::StrAppend(&runs, runs.empty() ? "" : " ", order.substr(i, 1), end - i);
    i = end;
  }
  return runs;
}

// The largest difference between the costs that jobs have received, until one has received all of its own.
double Imbalance(const std::string& order, const std::map<char, std::vector<double>>& costs) {
  std::map<char, std::size_t> taken;
  std::map<char, double> served;
  for (const auto& [job, its] : costs) served[job] = 0;
  double largest = 0;
  for (const char job : order) {
    served[job] += costs.at(job)[taken[job]++];
    if (taken[job] == costs.at(job).size()) break;
    const auto [least, most] = std::minmax_element(served.begin(), served.end(),
                                                   [](const auto& a, const auto& b) { return a.second < b.second; });
    largest = std::max(largest, most->second - least->second);
  }
  return largest;
}

TEST(FairnessTest, JobsOfUnequalItemsGetTheSame) {
  struct Case {
    const char* name;
    std::map<char, std::vector<double>> jobs;
    std::int64_t width;
  };
  const std::vector<Case> cases = {
      {"small", {{'a', Times(24, kUnit)}, {'b', Times(6, 4 * kUnit)}}, 100},
      {"small, one after the other", {{'a', Times(24, kUnit)}, {'b', Times(6, 4 * kUnit)}}, 1},
      {"three", {{'a', Times(20, kUnit)}, {'b', Times(10, 2 * kUnit)}, {'c', Times(3, 7 * kUnit)}}, 100},
      {"in turns", {{'a', Times(64, kUnit)}, {'b', Times(16, 4 * kUnit)}}, 1},
      {"one long item", {{'a', Times(30, kUnit)}, {'b', {9 * kUnit, kUnit, 9 * kUnit, kUnit}}}, 100},
  };
  for (const Case& c : cases) {
    ScriptedScheduler scheduler(1);
    scheduler.Hold();
    std::string names;
    double largest = 0;
    for (const auto& [name, costs] : c.jobs) {
      scheduler.Submit(name, {.costs = costs, .width = c.width});
      names += name;
      largest = std::max(largest, *std::max_element(costs.begin(), costs.end()));
    }
    scheduler.Release();
    scheduler.Wait(names);
    EXPECT_LE(Imbalance(scheduler.Order(), c.jobs), largest) << c.name << ": " << scheduler.Order();
  }
}

// Each newcomer brings the next: there is one at all times, and when one ends the next has had nothing. The long job
// gets its share of what is computed, and so do they.
TEST(FairnessTest, AStreamOfNewcomersStarvesNobody) {
  const int callers[2] = {};
  for (const double cost : {kUnit, 3 * kUnit}) {
    for (const bool same_caller : {false, true}) {
      ScriptedScheduler scheduler(1);
      const std::string newcomers = "abcdefghijklmnopqrstuvwxyz";
      const auto submit = [&](std::size_t index, const auto& self) -> void {
        if (index == newcomers.size()) return;
        scheduler.Submit(newcomers[index], {.costs = {cost},
                                            .caller = &callers[same_caller ? 0 : 1],
                                            .run = [&, index](int, Arena&, Pause) { self(index + 1, self); }});
      };
      scheduler.Hold();
      scheduler.Submit('L', {.costs = Times(100, kUnit), .caller = &callers[0]});
      submit(0, submit);
      scheduler.Release();
      scheduler.Wait(newcomers + "L");
      const std::string order = scheduler.Order();
      int of_long = 0, of_newcomers = 0;
      for (std::size_t i = 0; order.find_first_not_of('L', i) != std::string::npos; ++i) {
        order[i] == 'L' ? ++of_long : ++of_newcomers;
        ASSERT_LE(of_newcomers, 3 * of_long + 1) << order;  // of three: one runs, the next is there, and the long job
        ASSERT_LE(of_long, 6 * of_newcomers + 2) << order;
      }
    }
  }
}

// What came before others does not count against it, however much it was.
TEST(FairnessTest, AnOldJobDoesNotPayForTimeAlone) {
  ScriptedScheduler scheduler(1);
  scheduler.Submit('a', {.costs = Times(120, kUnit), .run = [&](int item, Arena&, Pause) {
                           if (item == 60) scheduler.Submit('b', {.costs = Times(20, kUnit)});
                         }});
  scheduler.WaitForItems(61);
  scheduler.Wait("ab");
  const std::string order = scheduler.Order();
  const std::string both = order.substr(order.find('b'));
  EXPECT_LE(std::count(both.begin(), both.begin() + 20, 'b'), 11) << order;
  EXPECT_GE(std::count(both.begin(), both.begin() + 20, 'b'), 9) << order;
}

// Jobs of 3.125 turns each, in items of 1/64 of a turn.
constexpr int kLong = 200;
constexpr double kPiece = kTurn / 64;

TEST(FairnessTest, CallersTakeTurnsOfTheSameCost) {
  const int callers[3] = {};
  ScriptedScheduler scheduler(1);
  scheduler.Hold();
  scheduler.Submit('a', {.costs = Times(kLong, kPiece), .caller = &callers[0]});
  scheduler.Submit('b', {.costs = Times(kLong / 4, 4 * kPiece), .caller = &callers[1]});
  scheduler.Submit('c', {.costs = Times(kLong, kPiece), .caller = &callers[2]});
  EXPECT_EQ(scheduler.Use().waiting, 2);
  scheduler.Release();
  scheduler.Wait("abc");
  // Near a job's end the next begins, so that two items are ready.
  EXPECT_THAT(Runs(scheduler.Order()), StartsWith("a64 b16 c64 a64 b16 c64 a64 b16 c64 a7"));
  EXPECT_EQ(scheduler.Ends(), "abc");
}

TEST(FairnessTest, WithinACallerTheEarliestDeadlineGoesOnAndWithoutDeadlinesTheyTakeTurns) {
  struct Case {
    double a, b, c;  // times; negative: no deadline
    const char* runs;
    const char* ends;
  };
  // The first is begun at once, since nothing else is there.
  for (const Case& c : std::vector<Case>{{-1, -1, -1, "a64 b64 c64 a64 b64 c64 a64 b64 c64 a7", "abc"},
                                         {1000, 2000, 3000, "a199", "abc"},
                                         {3000, 1000, 2000, "a64 b199", "bca"},
                                         {-1, 2000, 1000, "a64 c199", "cba"}}) {
    ScriptedScheduler scheduler(1);
    scheduler.Hold();
    scheduler.Submit('a', {.costs = Times(kLong, kPiece), .time = c.a});
    scheduler.Submit('b', {.costs = Times(kLong, kPiece), .time = c.b});
    scheduler.Submit('c', {.costs = Times(kLong, kPiece), .time = c.c});
    scheduler.Release();
    scheduler.Wait("abc");
    EXPECT_THAT(Runs(scheduler.Order()), StartsWith(c.runs)) << c.a << " " << c.b << " " << c.c;
    EXPECT_EQ(scheduler.Ends(), c.ends);
  }
}

TEST(FairnessTest, AloneAJobGoesOnBeyondItsTurn) {
  ScriptedScheduler scheduler(1);
  scheduler.Submit('a', {.costs = Times(kLong, kPiece)});
  scheduler.Wait("a");
  EXPECT_TRUE(scheduler.Of('a').status.ok());
}

// A turn has its cost for each thread: of two threads, one is held.
TEST(FairnessTest, ATurnGrowsWithTheThreads) {
  const int callers[2] = {};
  ScriptedScheduler scheduler(2);
  scheduler.Hold();
  absl::Notification both;
  scheduler.Submit('a', {.costs = Times(kLong, kPiece), .caller = &callers[0], .run = [&](int item, Arena&, Pause) {
                           if (item == 0) Await(both);
                         }});
  scheduler.Submit('b', {.costs = Times(kLong, kPiece), .caller = &callers[1]});
  both.Notify();
  scheduler.Wait("ab");
  EXPECT_THAT(Runs(scheduler.Order()), StartsWith("a128 b128 a69"));
}

// The most that waits for no turn, and one more.
TEST(FairnessTest, SmallJobsWaitForNoTurn) {
  struct Case {
    std::vector<double> costs;
    int waiting;
  };
  std::vector<double> on_this_thread = Times(9, (kSmallWork - kInlineCost) / 8);
  on_this_thread[0] = kInlineCost;
  std::vector<double> beyond = on_this_thread;
  beyond[0] += 1;
  for (const Case& c : std::vector<Case>{{Times(4, kSmallWork / 4), 0},
                                         {{kSmallWork / 2, kSmallWork / 2 + 1}, 1},
                                         {{kSmallWork}, 0},
                                         {{kSmallWork + 1}, 1},
                                         {on_this_thread, 0},
                                         {beyond, 1}}) {
    ScriptedScheduler scheduler(1);
    scheduler.Hold();
    scheduler.Submit('a', {.costs = Times(40, 4 * kUnit)});
    scheduler.Submit('b', {.costs = c.costs});
    EXPECT_EQ(scheduler.Use().waiting, c.waiting) << c.costs.size() << " items of " << c.costs[0];
    scheduler.Release();
    scheduler.Wait("ab");
    const std::string order = scheduler.Order();
    EXPECT_EQ(order.find('b') <= 1, c.waiting == 0) << order;
    EXPECT_EQ(order.find('b') >= 38, c.waiting == 1) << order;
    EXPECT_EQ(scheduler.Use().waiting, 0);
  }
}

// What the submitting thread has done counts no more: what is left is small.
TEST(FairnessTest, WhatIsDoneOnTheSubmittingThreadIsNotLeft) {
  ScriptedScheduler scheduler(1);
  scheduler.Hold();
  scheduler.Submit('a', {.costs = Times(40, 4 * kUnit)});
  scheduler.Submit('b', {.costs = {kInlineCost, kSmallWork}});
  EXPECT_EQ(scheduler.Use().waiting, 0);
  scheduler.Submit('c', {.costs = {kInlineCost, kSmallWork + 1}});
  EXPECT_EQ(scheduler.Use().waiting, 1);
}

// As many as keep two items per thread ready are computed at a time, and no job begins before one is needed.
TEST(FairnessTest, FewJobsAreComputedAtATime) {
  for (const int threads : {1, 2}) {
    const int callers[10] = {};
    ScriptedScheduler scheduler(threads);
    for (int i = 0; i < threads; ++i) {
      if (i == 0) scheduler.Hold();
    }
    absl::Notification all;
    const std::string names = "abcdefghij";
    std::map<char, std::size_t> left;
    for (std::size_t i = 0; i < names.size(); ++i) {
      scheduler.Submit(names[i],
                       {.costs = Times(40, kUnit), .width = 1, .caller = &callers[i], .run = [&](int, Arena&, Pause) {
                          Await(all);
                        }});
      left[names[i]] = 40;
    }
    EXPECT_GE(scheduler.Use().waiting, 10 - 3 * threads);
    all.Notify();
    scheduler.Release();
    scheduler.Wait(names);
    std::set<char> open;
    for (const char job : scheduler.Order()) {
      open.insert(job);
      // Those with an item that runs, and those with ready ones.
      ASSERT_LE(open.size(), static_cast<std::size_t>(3 * threads)) << scheduler.Order();
      if (--left[job] == 0) open.erase(job);
    }
  }
}

// The submitting thread runs items until these cost kInlineCost: the most, and one more.
TEST(FairnessTest, TheSubmittingThreadIsLeftAfterItsShare) {
  struct Case {
    std::vector<double> costs;
    int here;
  };
  for (const Case& c : std::vector<Case>{{{kInlineCost}, 1},
                                         {{kInlineCost + 1}, 0},
                                         {Times(3, kInlineCost / 3), 3},
                                         {Times(4, kInlineCost / 3), 3},
                                         {Times(1000, kInlineCost / 64), 64},
                                         {{1, kInlineCost - 1, 1}, 2},
                                         {{kInlineCost, 1}, 1},
                                         {{1, kInlineCost}, 1},
                                         {{1, kInlineCost, 1}, 1}}) {
    for (const std::int64_t width : {1, 1000}) {
      ScriptedScheduler scheduler(1);
      const auto here = std::this_thread::get_id();
      int ran_here = 0;
      std::vector<int> items;
      scheduler.Submit('a', {.costs = c.costs, .width = width, .run = [&](int item, Arena&, Pause) {
                               items.push_back(item);
                               if (std::this_thread::get_id() == here) ++ran_here;
                             }});
      const bool all_here = static_cast<std::size_t>(c.here) == c.costs.size();
      EXPECT_TRUE(!all_here || scheduler.Ended('a')) << "it is not told before Submit returns";
      scheduler.Wait("a");
      EXPECT_EQ(ran_here, c.here) << c.costs.size() << " items of " << c.costs[0] << ", width " << width;
      EXPECT_EQ(items.size(), c.costs.size());
    }
  }
}

// All threads at a time, however the items become ready.
TEST(FairnessTest, AllThreadsRunWhatIsReady) {
  constexpr int kThreads = 3;
  const std::vector<double> costs = Times(1 + kThreads, kUnit);
  struct Case {
    const char* name;
    Script script;
  };
  for (const Case& c : std::vector<Case>{{"at once", {.costs = costs}},
                                         {"as they are taken", {.costs = costs, .shy = true}},
                                         {"by the first item's end", {.costs = costs, .first_alone = true}},
                                         {"by ends", {.costs = costs, .width = kThreads}}}) {
    ScriptedScheduler scheduler(kThreads);
    for (const char name : {'a', 'b'}) {  // the second time, threads have ended their work
      absl::Mutex mutex;
      int running = 0;
      Script script = c.script;
      script.run = [&](int item, Arena&, Pause) {
        if (item == 0) return;
        absl::MutexLock lock(&mutex);
        ++running;
        const auto all_run = [&] { return running == kThreads; };
        AwaitCondition(mutex, all_run, absl::StrCat("an item on each thread, ready ", c.name));
      };
      scheduler.Submit(name, script);
      scheduler.Wait({name});
    }
  }
}

}  // namespace
}  // namespace attnd::schedule
