#include "schedule/intake_line.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace attnd::schedule {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::Gt;
using ::testing::Lt;
using Joined = IntakeLine::Joined;

const void* Caller(std::uintptr_t number) {
  return reinterpret_cast<const void*>(number + 1);  // NOLINT(performance-no-int-to-ptr): never followed
}

struct Entry : IntakeEntry {
  int number = 0;
};

class IntakeLineTest : public ::testing::Test {
 protected:
  explicit IntakeLineTest(IntakeOptions options = {.places = 2, .per_caller = 3, .most_hold = milliseconds(250)})
      : line_(options) {}

  // The deadline `due` after the start, none if negative.
  Joined Join(int number, std::uintptr_t caller, double due = -1) {
    Entry& entry = Of(number);
    entry.number = number;
    const Clock::time_point deadline =
        due < 0 ? Clock::time_point::max()
                : start_ + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(due));
    return line_.Join(entry, Caller(caller), deadline, now_, too_long_);
  }
  Entry& Of(int number) {
    auto& entry = all_[number];
    if (entry == nullptr) entry = std::make_unique<Entry>();
    return *entry;
  }
  // The numbers of those that may begin now.
  std::vector<int> TakeAll() {
    std::vector<int> taken;
    while (IntakeEntry* const entry = line_.Take(now_, late_)) taken.push_back(static_cast<Entry*>(entry)->number);
    return taken;
  }

  const Clock::time_point start_ = Clock::time_point(seconds(1000));
  Clock::time_point now_ = start_;
  IntakeLine line_;
  std::map<int, std::unique_ptr<Entry>> all_;
  TooLong too_long_;
  std::optional<TooLong> late_;
};

TEST_F(IntakeLineTest, FewBeginAndTheOthersWait) {
  EXPECT_EQ(Join(1, 0), Joined::kBegins);
  EXPECT_EQ(Join(2, 1), Joined::kBegins);
  EXPECT_EQ(Join(3, 2), Joined::kWaits);
  EXPECT_EQ(line_.receiving(), 2);
  EXPECT_EQ(line_.waiting(), 1U);
  EXPECT_THAT(TakeAll(), ElementsAre());
  line_.Received(Of(1), now_);
  EXPECT_THAT(TakeAll(), ElementsAre(3));
}

TEST_F(IntakeLineTest, CallersTakeTurnsAndTheEarliestDueGoesFirst) {
  Join(1, 8);
  Join(2, 9);
  Join(10, 0, 3);
  Join(11, 0, 1);
  Join(12, 0, 2);
  Join(20, 1, 9);
  Join(21, 1, 8);
  std::vector<int> order;
  for (int i = 0; i < 5; ++i) {
    line_.Leave(Of(i == 0 ? 1 : order.back()), now_);
    for (const int number : TakeAll()) order.push_back(number);
  }
  EXPECT_THAT(order, ElementsAre(11, 21, 12, 20, 10));
}

TEST_F(IntakeLineTest, OneCallerHasSoManyAtMost) {
  Join(1, 0);
  line_.Received(Of(1), now_);
  Join(2, 0);
  line_.Received(Of(2), now_);
  EXPECT_EQ(Join(3, 0), Joined::kBegins);
  EXPECT_EQ(Join(4, 0), Joined::kWaits) << "three are not done with, though a place is free";
  EXPECT_EQ(Join(5, 1), Joined::kBegins) << "which is another's";
  line_.Received(Of(3), now_);
  EXPECT_THAT(TakeAll(), ElementsAre());
  EXPECT_FALSE(line_.Leave(Of(2), now_));
  EXPECT_THAT(TakeAll(), ElementsAre(4));
}

TEST_F(IntakeLineTest, WhoLeavesWhileItWaitsIsNotTaken) {
  Join(1, 0);
  Join(2, 0);
  Join(3, 0);
  Join(4, 1);
  EXPECT_TRUE(line_.Leave(Of(3), now_));
  EXPECT_FALSE(line_.Leave(Of(3), now_));
  line_.Leave(Of(1), now_);
  EXPECT_THAT(TakeAll(), ElementsAre(4));
  EXPECT_EQ(line_.waiting(), 0U);
}

TEST_F(IntakeLineTest, ASlowSenderKeepsNoPlace) {
  Join(1, 0);
  Join(2, 0);
  Join(3, 0);
  EXPECT_EQ(line_.Expire(now_), now_ + milliseconds(250));
  now_ += milliseconds(249);
  EXPECT_EQ(line_.Expire(now_), now_ + milliseconds(1));
  EXPECT_TRUE(IntakeLine::Receives(Of(1)));
  now_ += milliseconds(1);
  EXPECT_EQ(line_.Expire(now_), Clock::time_point::max());
  EXPECT_FALSE(IntakeLine::Receives(Of(1)));
  EXPECT_EQ(line_.receiving(), 0);
  EXPECT_THAT(TakeAll(), ElementsAre(3));
  line_.Received(Of(1), now_);
  EXPECT_FALSE(line_.Leave(Of(1), now_)) << "it counts no more";
  EXPECT_EQ(line_.receiving(), 1);
}

// Who takes much longer than is usual is slow, and what is usual follows most of them: a few slow ones do not count.
TEST_F(IntakeLineTest, SlowIsWhoTakesMuchLongerThanIsUsual) {
  int next = 0;
  const auto receive = [&](milliseconds time) {
    Join(next, 0);
    now_ += time;
    line_.Received(Of(next), now_);
    line_.Leave(Of(next++), now_);
  };
  const auto hold = [&] {
    Join(next, 0);
    const Clock::duration time = line_.Expire(now_) - now_;
    line_.Leave(Of(next++), now_);
    return time;
  };
  EXPECT_EQ(hold(), milliseconds(250)) << "nothing is known";
  for (int i = 0; i < 100; ++i) receive(milliseconds(1));
  EXPECT_EQ(hold(), milliseconds(20)) << "four times as long, but no less than this";
  for (int i = 0; i < 500; ++i) receive(milliseconds(i % 10 == 0 ? 200 : 10));
  EXPECT_GT(hold(), milliseconds(35));
  EXPECT_LT(hold(), milliseconds(50));
  for (int i = 0; i < 100; ++i) receive(milliseconds(30));
  EXPECT_EQ(hold(), milliseconds(120));
  receive(milliseconds(10'000));
  EXPECT_EQ(hold(), milliseconds(120)) << "it had nothing to send";
}

// A caller whose senders hold every place for as long as they may goes behind one whose calls are short.
TEST_F(IntakeLineTest, PlacesGoToWhoHasHeldThemForTheShortestTime) {
  int next = 0;
  for (int i = 0; i < 20; ++i) Join(next++, 0);
  int served = 0;
  for (int round = 0; round < 100; ++round) {
    if (round % 2 == 0) Join(10'000 + round, 1);
    now_ += milliseconds(125);
    line_.Expire(now_);
    for (const int number : TakeAll()) {
      if (number < 10'000) continue;
      ++served;
      line_.Received(Of(number), now_);
      line_.Leave(Of(number), now_);
      TakeAll();
    }
    while (line_.waiting() < 10) Join(next++, 0);
  }
  EXPECT_GE(served, 49) << "each has had the next place that was free";
}

// However long one has been at work before there was a line.
TEST_F(IntakeLineTest, NobodyPaysForTimeWithoutALine) {
  int next = 0;
  const auto replace = [&](int number, std::uintptr_t caller) {
    line_.Leave(Of(number), now_);
    return Join(next++, caller);
  };
  Join(next++, 0);
  Join(next++, 0);
  for (int i = 0; i < 1000; ++i) {
    now_ += milliseconds(100);
    ASSERT_EQ(replace(i, 0), Joined::kBegins) << "one of the two is always here";
  }
  std::vector<int> begun = {next - 2, next - 1};
  for (int i = 0; i < 20; ++i) {
    Join(2000 + i, 0);
    Join(3000 + i, 1);
  }
  std::map<int, int> of_caller;
  for (int i = 0; i < 20; ++i) {
    now_ += milliseconds(100);
    line_.Leave(Of(begun[static_cast<std::size_t>(i)]), now_);
    for (const int number : TakeAll()) {
      begun.push_back(number);
      ++of_caller[number / 1000];
    }
  }
  EXPECT_THAT(of_caller[2], testing::AllOf(testing::Ge(8), testing::Le(12)));
  EXPECT_THAT(of_caller[3], testing::AllOf(testing::Ge(8), testing::Le(12)));
}

// One place, one entry in 100 ms.
class OnePlaceTest : public IntakeLineTest {
 protected:
  explicit OnePlaceTest(Clock::duration max_wait = seconds(2))
      : IntakeLineTest({.places = 1, .per_caller = 100, .most_hold = seconds(100), .max_wait = max_wait}) {
    Join(next_++, 0);
    for (int i = 0; i < 20; ++i) {
      Join(next_++, 0);
      Pass();
    }
  }
  // The one that is received is done with.
  void Pass() {
    now_ += milliseconds(100);
    line_.Leave(Of(first_++), now_);
    TakeAll();
  }
  int next_ = 0;
  int first_ = 0;
};

TEST_F(OnePlaceTest, WhatWouldBeLateIsRefused) {
  const double now = std::chrono::duration<double>(now_ - start_).count();
  int wait = 0;
  while (wait < 100 && Join(next_, 0, now + 2) == Joined::kWaits) {
    ++wait;
    ++next_;
  }
  // Three quarters of two seconds, less what one takes once it begins.
  EXPECT_THAT(wait, testing::AllOf(testing::Ge(13), testing::Le(14)));
  EXPECT_THAT(too_long_.estimate, testing::DoubleNear(1.5, 0.15));
  EXPECT_THAT(too_long_.come_back, testing::AllOf(Gt(0.0), Lt(0.2)));
  EXPECT_FALSE(line_.Leave(Of(next_++), now_)) << "it never was here";
  EXPECT_EQ(Join(next_++, 0, now + 1), Joined::kWaits) << "it is due before them";
}

TEST_F(OnePlaceTest, WithoutADeadlineItMayWaitForSoLong) {
  for (int i = 0; i < 19; ++i) EXPECT_EQ(Join(next_++, 0), Joined::kWaits);
  EXPECT_EQ(Join(next_, 0), Joined::kRefused);
  EXPECT_THAT(too_long_.estimate, testing::DoubleNear(2, 0.15));
}

class PatientTest : public OnePlaceTest {
 protected:
  PatientTest() : OnePlaceTest(Clock::duration::max()) {}
};

TEST_F(PatientTest, OrForAsLongAsItLikes) {
  for (int i = 0; i < 300; ++i) EXPECT_EQ(Join(next_++, 0), Joined::kWaits);
}

TEST_F(OnePlaceTest, AnotherCallerIsNotRefusedForTheLine) {
  const double now = std::chrono::duration<double>(now_ - start_).count();
  for (int i = 0; i < 19; ++i) Join(next_++, 0);
  EXPECT_EQ(Join(next_++, 0, now + 0.12), Joined::kRefused) << "of its own one stands before it, which is due earlier";
  EXPECT_EQ(Join(next_++, 1, now + 0.5), Joined::kWaits);
}

// A line that stood still for longer than it was thought to.
TEST_F(OnePlaceTest, WhatIsLateWhenItCouldBeginIsRefusedThen) {
  const double now = std::chrono::duration<double>(now_ - start_).count();
  const int late = next_;
  ASSERT_EQ(Join(next_++, 0, now + 0.6), Joined::kWaits);
  now_ += milliseconds(590);
  line_.Leave(Of(first_++), now_);
  IntakeEntry* const taken = line_.Take(now_, late_);
  ASSERT_EQ(taken, &Of(late));
  ASSERT_TRUE(late_.has_value());
  EXPECT_GT(late_->come_back, 0);
  EXPECT_EQ(line_.receiving(), 0);
}

// A million events of random callers: honest, slow, and such that change their minds. After each, its counts
// are those of the calls that the test has given it.
TEST(IntakeLineSimulation, NothingIsLostAndNobodyStarves) {
  const std::uint64_t seed = std::random_device()();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937_64 random(seed);
  constexpr IntakeOptions kOptions{.places = 8, .per_caller = 6, .most_hold = milliseconds(50), .max_wait = seconds(1)};
  constexpr int kCallers = 12;
  IntakeLine line(kOptions);
  Clock::time_point now(seconds(1000));
  enum class State : std::uint8_t { kWaits, kReceives, kInside };
  struct Call {
    Entry entry;
    State state = State::kWaits;
    Clock::time_point joined, began;
    std::uintptr_t caller = 0;
  };
  std::vector<std::unique_ptr<Call>> calls;
  std::map<IntakeEntry*, Call*> by_entry;
  std::int64_t refused = 0, late_calls = 0, begun = 0, expired = 0;
  Clock::duration longest{};
  const auto begin = [&](Call& call) {
    call.state = State::kReceives;
    call.began = now;
    longest = std::max(longest, now - call.joined);
    ++begun;
  };
  const auto remove = [&](std::size_t i) {
    by_entry.erase(&calls[i]->entry);
    std::swap(calls[i], calls.back());
    calls.pop_back();
  };
  for (int event = 0; event < 1'000'000; ++event) {
    now += std::chrono::microseconds(random() % 400);
    const auto what = random() % 10;
    if (what < 4 && calls.size() < 200) {
      auto call = std::make_unique<Call>();
      call->joined = now;
      call->caller = std::min(random() % kCallers, random() % kCallers);
      const Clock::time_point due =
          random() % 4 == 0 ? Clock::time_point::max() : now + milliseconds(1 + random() % 500);
      TooLong too_long;
      const Joined joined = line.Join(call->entry, Caller(call->caller), due, now, too_long);
      if (joined == Joined::kRefused) {
        ++refused;
        ASSERT_GT(too_long.come_back, 0);
      } else {
        if (joined == Joined::kBegins) begin(*call);
        by_entry[&call->entry] = call.get();
        calls.push_back(std::move(call));
      }
    } else if (!calls.empty()) {
      const std::size_t i = random() % calls.size();
      Call& call = *calls[i];
      // The last caller's senders are slow, and it seldom changes its mind.
      const bool slow = call.caller == kCallers - 1 || (call.state == State::kWaits && random() % 20 != 0);
      if (slow) continue;
      if (call.state == State::kReceives && random() % 2 == 0) {
        line.Received(call.entry, now);
        call.state = State::kInside;
      } else {
        ASSERT_EQ(line.Leave(call.entry, now), call.state == State::kWaits);
        remove(i);
      }
    }
    line.Expire(now);
    for (std::size_t i = 0; i < calls.size();) {
      Call& call = *calls[i];
      const bool over = call.state == State::kReceives && !IntakeLine::Receives(call.entry);
      if (call.state == State::kReceives) {
        ASSERT_GE(now - call.began, over ? kOptions.least_hold : Clock::duration::zero());
        ASSERT_LT(now - call.began, over ? Clock::duration::max() : kOptions.most_hold);
      } else {
        ASSERT_FALSE(IntakeLine::Receives(call.entry));
      }
      expired += over ? 1 : 0;
      over ? remove(i) : static_cast<void>(++i);
    }
    std::optional<TooLong> late;
    while (IntakeEntry* const entry = line.Take(now, late)) {
      Call& call = *by_entry.at(entry);
      ASSERT_EQ(call.state, State::kWaits);
      if (!late.has_value()) {
        begin(call);
        continue;
      }
      ++late_calls;
      remove(static_cast<std::size_t>(
          std::find_if(calls.begin(), calls.end(), [&](const auto& one) { return one.get() == &call; }) -
          calls.begin()));
    }
    int receiving = 0;
    std::size_t waiting = 0;
    std::map<std::uintptr_t, int> inside;
    for (const auto& call : calls) {
      receiving += call->state == State::kReceives ? 1 : 0;
      waiting += call->state == State::kWaits ? 1 : 0;
      if (call->state != State::kWaits) ++inside[call->caller];
    }
    ASSERT_EQ(line.receiving(), receiving);
    ASSERT_EQ(line.waiting(), waiting);
    ASSERT_LE(receiving, kOptions.places);
    for (const auto& [caller, count] : inside) ASSERT_LE(count, kOptions.per_caller);
    if (waiting > 0 && receiving < kOptions.places) {
      for (const auto& call : calls) {
        if (call->state != State::kWaits) continue;
        ASSERT_EQ(inside[call->caller], kOptions.per_caller) << "one could begin";
      }
    }
  }
  EXPECT_GT(begun, 1000);
  EXPECT_GT(refused, 0);
  EXPECT_GT(expired, 0);
  EXPECT_LT(longest, seconds(10)) << "somebody starves";
  RecordProperty("late", static_cast<int>(late_calls));
  while (!calls.empty()) {
    line.Leave(calls.back()->entry, now);
    remove(calls.size() - 1);
  }
  EXPECT_EQ(line.receiving(), 0);
  EXPECT_EQ(line.waiting(), 0U);
}

}  // namespace
}  // namespace attnd::schedule
