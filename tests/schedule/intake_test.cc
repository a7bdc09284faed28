#include "schedule/intake.h"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include "../support/wait.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "scripted.h"

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

// Nothing but the calls themselves let the next one in.
constexpr IntakeOptions kPatient{.places = 2, .per_caller = 2, .least_hold = hours(1), .most_hold = hours(1)};

// A way in which a caller's first entry, of two, frees what the third waits for.
struct Way {
  const char* name;
  bool other_caller;  // the third is another caller's, and waits for a place; else for the first to be done with
  void (*leave)(Intake&, Waiter&);
};

TEST(IntakeTest, WhatIsFreedIsTheNextOnesInEachWay) {
  const std::vector<Way> ways = {
      {"received", true, [](Intake& intake, Waiter& first) { intake.Received(first); }},
      {"left while it is received", true, [](Intake& intake, Waiter& first) { intake.Leave(first); }},
      {"left while it is received", false, [](Intake& intake, Waiter& first) { intake.Leave(first); }},
      {"received and left", false,
       [](Intake& intake, Waiter& first) {
         intake.Received(first);
         EXPECT_EQ(intake.use().waiting, 1) << "it is not done with";
         intake.Leave(first);
       }},
  };
  for (const Way& way : ways) {
    Intake intake(kPatient);
    Waiter first, second, third, fourth;
    TooLong too_long;
    EXPECT_EQ(intake.Join(first, &first, kNever, too_long), Joined::kBegins);
    EXPECT_EQ(intake.Join(second, &first, kNever, too_long), Joined::kBegins);
    const void* const caller = way.other_caller ? &third : &first;
    EXPECT_EQ(intake.Join(third, caller, kNever, too_long), Joined::kWaits);
    way.leave(intake, first);
    EXPECT_TRUE(third.begun.HasBeenNotified()) << way.name;
    EXPECT_EQ(intake.use().waiting, 0) << way.name;
    for (Waiter* waiter : {&first, &second, &third}) intake.Leave(*waiter);
    // All that there was is there again.
    EXPECT_EQ(intake.Join(first, &first, kNever, too_long), Joined::kBegins) << way.name;
    EXPECT_EQ(intake.Join(second, &first, kNever, too_long), Joined::kBegins) << way.name;
    EXPECT_EQ(intake.Join(third, &first, kNever, too_long), Joined::kWaits) << way.name;
    intake.Received(first);
    EXPECT_EQ(intake.Join(fourth, &fourth, kNever, too_long), Joined::kBegins) << way.name;
    for (Waiter* waiter : {&third, &first, &second, &fourth}) intake.Leave(*waiter);
  }
}

// One that was refused or found late has left: it counts nowhere but in the counters.
TEST(IntakeTest, CountsThoseThatAreRefusedAndLate) {
  Intake intake({.places = 1, .least_hold = hours(1), .most_hold = hours(1), .max_wait = milliseconds(1)});
  TooLong too_long;
  {
    // One after the other, so that it knows how long one takes.
    std::deque<Waiter> line(30);
    for (Waiter& waiter : line) intake.Join(waiter, &line, kNever, too_long);
    for (Waiter& waiter : line) {
      std::this_thread::sleep_for(milliseconds(2));
      intake.Leave(waiter);
    }
  }
  const Intake::Use before = intake.use();
  Waiter first, second, third;
  EXPECT_EQ(intake.Join(first, nullptr, kNever, too_long), Joined::kBegins);
  EXPECT_EQ(intake.Join(second, nullptr, kNever, too_long), Joined::kRefused);
  EXPECT_GT(too_long.estimate, 0.001);
  EXPECT_GE(too_long.come_back, 0.01);
  EXPECT_EQ(intake.use().refused, before.refused + 1);
  EXPECT_EQ(intake.use().waiting, 0);
  EXPECT_FALSE(intake.Leave(second));
  EXPECT_EQ(intake.Join(third, nullptr, Clock::now() + hours(1), too_long), Joined::kWaits);
  intake.Leave(first);
  EXPECT_TRUE(third.begun.HasBeenNotified());
  EXPECT_FALSE(intake.Receives(first));
  EXPECT_TRUE(intake.Receives(third));
  intake.Leave(third);
}

// The destructor ends the thread, whatever this waits for.
TEST(IntakeTest, Ends) {
  for (const bool has_waited : {false, true}) {
    auto intake = std::make_unique<Intake>(kPatient);
    if (has_waited) {
      Waiter first, second, third;
      TooLong too_long;
      for (Waiter* waiter : {&first, &second, &third}) intake->Join(*waiter, nullptr, kNever, too_long);
      for (Waiter* waiter : {&third, &first, &second}) intake->Leave(*waiter);
    }
    absl::Notification ended;
    std::thread end([&] {
      intake.reset();
      ended.Notify();
    });
    if (!ended.WaitForNotificationWithTimeout(absl::Seconds(20))) GTEST_LOG_(FATAL) << "its thread does not end";
    end.join();
  }
}

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

// By the intake's own thread, which sleeps until one waits: nothing else happens here.
TEST(IntakeTest, ASlowSenderHoldsTheOthersUpForSoLong) {
  std::set<pid_t> threads = Threads();
  Intake intake({.places = 1, .most_hold = milliseconds(50)});
  for (const pid_t thread : Threads()) {
    if (threads.insert(thread).second) AwaitSleep(thread);
  }
  Waiter slow, next;
  TooLong too_long;
  ASSERT_EQ(intake.Join(slow, nullptr, kNever, too_long), Joined::kBegins);
  ASSERT_EQ(intake.Join(next, nullptr, kNever, too_long), Joined::kWaits);
  EXPECT_TRUE(next.begun.WaitForNotificationWithTimeout(absl::Seconds(20)));
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
  EXPECT_TRUE(line.back().begun.WaitForNotificationWithTimeout(absl::Seconds(20)));
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
  EXPECT_TRUE(test::Becomes([&] { return late == kLine; }));  // the intake's own thread may have taken some
  EXPECT_EQ(intake.use().late, kLine);
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
          if (!test::Becomes([&racer] { return racer.ends > 0; })) GTEST_LOG_(FATAL) << "neither begun nor late";
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
