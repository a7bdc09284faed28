#include "schedule/intake.h"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <random>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"

namespace attnd::schedule {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using Joined = IntakeLine::Joined;

struct Waiter final : Intake::Entry {
  void Begin() override { begun.Notify(); }
  void Late(const TooLong&) override { late.Notify(); }
  absl::Notification begun, late;
};

constexpr Clock::time_point kNever = Clock::time_point::max();

TEST(IntakeTest, APlaceThatIsFreeIsTheNextOnes) {
  Intake intake({.places = 1, .most_hold = hours(1)});
  Waiter first, second, third;
  TooLong too_long;
  EXPECT_EQ(intake.Join(first, nullptr, kNever, too_long), Joined::kBegins);
  EXPECT_EQ(intake.Join(second, nullptr, kNever, too_long), Joined::kWaits);
  EXPECT_EQ(intake.Join(third, nullptr, kNever, too_long), Joined::kWaits);
  EXPECT_EQ(intake.use().waiting, 2);
  intake.Received(first);
  EXPECT_TRUE(second.begun.HasBeenNotified());
  EXPECT_FALSE(third.begun.HasBeenNotified());
  EXPECT_TRUE(intake.Receives(second));
  EXPECT_TRUE(intake.Leave(third));
  EXPECT_FALSE(intake.Leave(second));
  EXPECT_FALSE(intake.Leave(first));
  EXPECT_FALSE(third.begun.HasBeenNotified());
}

// By the intake's own thread: nothing else happens here.
TEST(IntakeTest, ASlowSenderHoldsTheOthersUpForSoLong) {
  Intake intake({.places = 1, .most_hold = milliseconds(50)});
  Waiter slow, next;
  TooLong too_long;
  ASSERT_EQ(intake.Join(slow, nullptr, kNever, too_long), Joined::kBegins);
  ASSERT_EQ(intake.Join(next, nullptr, kNever, too_long), Joined::kWaits);
  EXPECT_TRUE(next.begun.WaitForNotificationWithTimeout(absl::Seconds(60)));
  EXPECT_FALSE(intake.Receives(slow));
  intake.Leave(next);
  intake.Leave(slow);
}

// One after the other, each begun by the thread: its next look is never far.
TEST(IntakeTest, ALineOfSlowSendersMovesOn) {
  constexpr auto kHold = milliseconds(1);
  Intake intake({.places = 1, .least_hold = kHold, .most_hold = kHold});
  std::deque<Waiter> line(200);
  TooLong too_long;
  for (Waiter& waiter : line) intake.Join(waiter, nullptr, kNever, too_long);
  EXPECT_TRUE(line.back().begun.WaitForNotificationWithTimeout(absl::Seconds(60)));
  for (Waiter& waiter : line) intake.Leave(waiter);
}

// Each leaves as it is told, which does not find the next one: the stack would grow with the line.
TEST(IntakeTest, ALongLineThatIsLateGoesAtOnce) {
  struct Leaver final : Intake::Entry {
    void Begin() override {}
    void Late(const TooLong&) override {
      intake->Leave(*this);
      ++*late;
    }
    Intake* intake = nullptr;
    std::atomic<int>* late = nullptr;
  };
  Intake intake({.places = 1, .most_hold = hours(1)});
  constexpr int kLine = 50'000;
  std::deque<Leaver> line(kLine);
  Waiter first;
  TooLong too_long;
  ASSERT_EQ(intake.Join(first, nullptr, kNever, too_long), Joined::kBegins);
  const Clock::time_point due = Clock::now() + milliseconds(1);
  std::atomic<int> late{0};
  for (Leaver& leaver : line) {
    leaver.intake = &intake;
    leaver.late = &late;
    ASSERT_EQ(intake.Join(leaver, nullptr, due, too_long), Joined::kWaits);
  }
  std::this_thread::sleep_until(due);
  intake.Leave(first);
  while (late < kLine) std::this_thread::yield();  // the intake's own thread may have taken some
}

// Each that has joined is begun, found late or has left, and never two of these.
TEST(IntakeTest, ManyThreads) {
  struct Racer final : Intake::Entry {
    void Begin() override { ++ends; }
    void Late(const TooLong&) override { ++ends; }
    std::atomic<int> ends{0};
  };
  Intake intake({.places = 3,
                 .per_caller = 2,
                 .least_hold = std::chrono::microseconds(100),
                 .most_hold = std::chrono::microseconds(200),
                 .max_wait = milliseconds(100)});
  std::vector<std::thread> threads;
  std::atomic<std::int64_t> wrong{0};
  for (unsigned t = 0; t < 6; ++t) {
    threads.emplace_back([&, t] {
      std::minstd_rand random(t);
      for (int i = 0; i < 2000; ++i) {
        Racer racer;
        TooLong too_long;
        const bool due = random() % 2 == 0;
        const Joined joined =
            intake.Join(racer, &threads + t % 3, due ? Clock::now() + milliseconds(random() % 20) : kNever, too_long);
        if (joined == Joined::kWaits) {
          if (random() % 3 == 0 && intake.Leave(racer)) ++racer.ends;
          while (racer.ends == 0) std::this_thread::yield();
        } else {
          ++racer.ends;
        }
        if (random() % 2 == 0) intake.Received(racer);
        intake.Leave(racer);
        if (racer.ends != 1) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(intake.use().waiting, 0);
}

}  // namespace
}  // namespace attnd::schedule
