#include "schedule/turns.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <random>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace attnd::schedule {
namespace {

using std::chrono::seconds;
using ::testing::ElementsAre;

constexpr double kQuantum = 100;

const void* Caller(std::uintptr_t number) {
  return reinterpret_cast<const void*>(number + 1);  // NOLINT(performance-no-int-to-ptr): never followed
}

class TurnsTest : public ::testing::Test {
 protected:
  Turn& Add(std::uintptr_t caller, int due, double cost) {
    Turn& turn = all_.emplace_back();
    turn.caller = Caller(caller);
    turn.due = Clock::time_point(seconds(due));
    turn.sequence = all_.size();
    turn.left = cost;
    turns_.Join(&turn);
    turns_.Wait(&turn);
    return turn;
  }

  // Takes one, gives it all that it needs, and says which it was, from 1 on.
  std::uint64_t Serve() {
    Turn* const turn = turns_.Take();
    if (turn == nullptr) return 0;
    turns_.Charge(turn, turn->left);
    turns_.Leave(turn);
    return turn->sequence;
  }
  std::vector<std::uint64_t> ServeAll() {
    std::vector<std::uint64_t> served;
    while (const std::uint64_t one = Serve()) served.push_back(one);
    return served;
  }

  Turns turns_{kQuantum};
  std::deque<Turn> all_;
};

TEST_F(TurnsTest, EarliestDueFirstThenInOrder) {
  Add(0, 3, 1);
  Add(0, 1, 1);
  Add(0, 2, 1);
  Add(0, 1, 1);
  EXPECT_EQ(turns_.waiting(), 4U);
  EXPECT_EQ(turns_.cost(), 4);
  EXPECT_THAT(ServeAll(), ElementsAre(2, 4, 3, 1));
  EXPECT_TRUE(turns_.empty());
  EXPECT_EQ(turns_.Take(), nullptr);
}

TEST_F(TurnsTest, ATurnIsAQuantum) {
  for (int i = 0; i < 4; ++i) Add(0, 0, 50);
  for (int i = 0; i < 2; ++i) Add(1, 0, 100);
  EXPECT_THAT(ServeAll(), ElementsAre(1, 2, 5, 3, 4, 6));
}

TEST_F(TurnsTest, WhoHadMoreThanATurnWaitsForMore) {
  Add(0, 0, 350);
  Add(0, 0, 10);
  for (int i = 0; i < 5; ++i) Add(1, 0, 100);
  EXPECT_THAT(ServeAll(), ElementsAre(1, 3, 4, 5, 2, 6, 7)) << "250 in debt: paid off in three rounds";
}

TEST_F(TurnsTest, AloneNobodyIsInDebt) {
  Turn& huge = Add(0, 0, 1e15);
  ASSERT_EQ(turns_.Take(), &huge);
  EXPECT_FALSE(turns_.Charge(&huge, 9e14));
  turns_.Wait(&huge);
  ASSERT_EQ(turns_.Take(), &huge) << "without a round for each quantum";
  turns_.Leave(&huge);
}

TEST_F(TurnsTest, WhatIsRemovedIsNotServed) {
  Add(0, 0, 1);
  Turn& gone = Add(1, 0, 1);
  Add(2, 0, 1);
  turns_.Remove(&gone);
  turns_.Leave(&gone);
  EXPECT_EQ(turns_.cost(), 2);
  EXPECT_THAT(ServeAll(), ElementsAre(1, 3));
}

TEST_F(TurnsTest, CostBeforeIsOfOnesOwnThatAreDueAndOfAFairShareOfOthers) {
  for (int due = 1; due <= 4; ++due) Add(0, due, 1000);
  Add(1, 0, 10);
  for (int i = 0; i < 9; ++i) Add(2, 0, 1000);
  Turn turn;
  turn.caller = Caller(0);
  const auto until = [](int due) { return Clock::time_point(seconds(due)); };
  turn.left = 500;
  // Of two others, as much as it has itself, and a turn: 2 x (2000 + 500 + 100).
  EXPECT_EQ(turns_.CostBefore(turn, until(2), 1e9), 2000 + 5200);
  EXPECT_EQ(turns_.CostBefore(turn, until(5), 1e9), 4000 + 9010) << "not more than there is";
  turn.caller = Caller(7);
  EXPECT_EQ(turns_.CostBefore(turn, until(5), 1e9), 3 * 600);
}

// Each comes when another is served: nobody's turn moves back.
TEST_F(TurnsTest, NewCallersComeLast) {
  Add(0, 0, 250);
  Add(0, 0, 50);
  Add(1, 0, 50);
  std::vector<std::uint64_t> served;
  for (std::uintptr_t caller = 2; caller < 12; ++caller) {
    served.push_back(Serve());
    Add(caller, 0, 100);
  }
  // The first is in debt by one turn and a half when its first job is done.
  EXPECT_THAT(served, ElementsAre(1, 3, 4, 2, 5, 6, 7, 8, 9, 10)) << "its turn comes once in each round";
}

// Of random jobs that wait, what is served before one that comes now is at most what CostBefore says, and it says no
// more than the rule in turns.h.
TEST(TurnsBound, CostBeforeHolds) {
  std::mt19937 random(7);
  const auto up_to = [&random](std::uint32_t most) { return 1 + static_cast<int>(random() % most); };
  for (int trial = 0; trial < 2000; ++trial) {
    Turns turns(kQuantum);
    std::deque<Turn> all;
    std::map<const void*, double> of_others;
    const auto add = [&](std::uintptr_t caller, int due, double cost) -> Turn& {
      Turn& turn = all.emplace_back();
      turn.caller = Caller(caller);
      turn.due = Clock::time_point(seconds(due));
      turn.sequence = all.size();
      turn.left = cost;
      turns.Join(&turn);
      return turn;
    };
    const auto own_due = Clock::time_point(seconds(up_to(10)));
    double own = 0;
    for (int i = up_to(20); i > 0; --i) {
      Turn& turn = add(random() % 5, up_to(10), up_to(300));
      turns.Wait(&turn);
      if (turn.caller != Caller(0)) of_others[turn.caller] += turn.left;
      if (turn.caller == Caller(0) && turn.due <= own_due) own += turn.left;
    }
    Turn& late = add(0, 0, up_to(300));
    late.due = own_due;
    const double before = turns.CostBefore(late, own_due, 1e9);
    double others = 0;
    for (const auto& [caller, cost] : of_others) others += cost;
    const double shares = static_cast<double>(of_others.size()) * (own + late.left + kQuantum);
    ASSERT_DOUBLE_EQ(before, own + std::min(others, shares));
    ASSERT_GE(turns.CostBefore(late, own_due, own / 2), own / 2) << "it stops counting only beyond that";
    turns.Wait(&late);
    double served = 0;
    for (Turn* turn = turns.Take(); turn != &late; turn = turns.Take()) {
      ASSERT_NE(turn, nullptr);
      served += turn->left;
      turns.Charge(turn, turn->left);
    }
    // A job is served whole here, so that each other caller may go beyond its turn by one.
    ASSERT_LE(served, before + static_cast<double>(of_others.size()) * 300) << "trial " << trial;
  }
}

// A million events: random callers come, wait, are served in part, wait again, and go. After each: what waits is
// counted, its cost is the sum, the earliest of a caller goes first, and nobody who waits all the time gets less than
// another by more than two turns and an item.
TEST(TurnsSimulation, NobodyStarves) {
  constexpr std::uint32_t kSeed = 20261126;
  SCOPED_TRACE(testing::Message() << "seed " << kSeed);
  std::mt19937 generator(kSeed);
  const auto random = [&generator] { return static_cast<std::uint32_t>(generator()); };
  constexpr std::size_t kCallers = 40;
  constexpr double kMostCharged = 250;
  Turns turns(kQuantum);
  std::deque<Turn> all;
  std::vector<Turn*> unused;
  std::array<std::vector<Turn*>, kCallers> waiting;
  std::array<double, kCallers> served{};  // since all of these began to wait at all times
  std::array<bool, kCallers> always{};
  double most = 0, least = 0;
  for (std::size_t c = 0; c < 10; ++c) always[c] = true;  // these keep some waiting

  const auto add = [&](std::size_t c, std::uint64_t number) {
    if (unused.empty()) unused.push_back(&all.emplace_back());
    Turn* const turn = unused.back();
    unused.pop_back();
    turn->caller = Caller(c);
    turn->due = Clock::time_point(seconds(random() % 50));
    turn->sequence = number;
    turn->left = 1 + random() % 400;
    turns.Join(turn);
    turns.Wait(turn);
    waiting[c].push_back(turn);
  };
  const auto drop = [&](std::size_t c, Turn* turn) {
    waiting[c].erase(std::find(waiting[c].begin(), waiting[c].end(), turn));
  };

  std::size_t count = 0;
  for (std::uint64_t event = 0; event < 1'000'000; ++event) {
    for (std::size_t c = 0; c < 10; ++c) {
      while (waiting[c].size() < 2) add(c, event), ++count;
    }
    const std::uint32_t what = random() % 100;
    const std::size_t c = 10 + random() % (kCallers - 10);
    if (what < 30 && count < 400) {
      add(c, event);
      ++count;
    } else if (what < 40 && !waiting[c].empty()) {
      Turn* const turn = waiting[c][random() % waiting[c].size()];
      turns.Remove(turn);
      turns.Leave(turn);
      drop(c, turn);
      unused.push_back(turn);
      --count;
    } else if (Turn* const turn = turns.Take(); turn != nullptr) {
      const auto of = static_cast<std::size_t>(reinterpret_cast<std::uintptr_t>(turn->caller) - 1);
      for (const Turn* other : waiting[of]) {
        ASSERT_TRUE(turn->due < other->due || (turn->due == other->due && turn->sequence <= other->sequence));
      }
      const double charged = std::min<double>(turn->left, 1 + random() % static_cast<std::uint32_t>(kMostCharged));
      turns.Charge(turn, charged);
      served[of] += charged;
      if (turn->left > 0) {
        turns.Wait(turn);
      } else {
        turns.Leave(turn);
        drop(of, turn);
        unused.push_back(turn);
        --count;
      }
      most = *std::max_element(served.begin(), served.begin() + 10);
      least = *std::min_element(served.begin(), served.begin() + 10);
      ASSERT_LE(most - least, 2 * (kQuantum + kMostCharged)) << event;
    }
    ASSERT_EQ(turns.waiting(), count) << event;
    if (event % 1000 == 0) {
      double sum = 0;
      for (const auto& of : waiting) {
        for (const Turn* turn : of) sum += turn->left;
      }
      ASSERT_NEAR(turns.cost(), sum, 1e-3) << event;
    }
  }
  EXPECT_GT(least, 1e6) << "it was a simulation of something";
}

}  // namespace
}  // namespace attnd::schedule
