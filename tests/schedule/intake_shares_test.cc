// How callers share the places (intake_line.h), with one place and callers that always wait.
#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <vector>

#include "gtest/gtest.h"
#include "schedule/intake_line.h"

namespace attnd::schedule {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Joined = IntakeLine::Joined;

const void* Caller(std::uintptr_t number) {
  return reinterpret_cast<const void*>(number + 1);  // NOLINT(performance-no-int-to-ptr): never followed
}

struct Entry : IntakeEntry {
  std::uintptr_t caller = 0;
};

class Line {
 public:
  explicit Line(const IntakeOptions& options) : line_(options) {}

  Joined Join(std::uintptr_t caller, Clock::time_point deadline = Clock::time_point::max()) {
    Entry& entry = all_.emplace_back();
    entry.caller = caller;
    TooLong too_long;
    const Joined joined = line_.Join(entry, Caller(caller), deadline, now_, too_long);
    if (joined == Joined::kBegins) received_.push_back(&entry);
    return joined;
  }
  // The first that is received is done with after `time`; returns the caller of the next.
  std::optional<std::uintptr_t> Next(milliseconds time) {
    now_ += time;
    line_.Received(*received_.front(), now_);
    line_.Leave(*received_.front(), now_);
    received_.pop_front();
    std::optional<TooLong> late;
    auto* const next = static_cast<Entry*>(line_.Take(now_, late));
    if (next == nullptr) return std::nullopt;
    received_.push_back(next);
    return next->caller;
  }
  std::uintptr_t receives() const { return received_.front()->caller; }
  const IntakeLine& line() const { return line_; }
  Clock::time_point now() const { return now_; }

 private:
  Clock::time_point now_ = Clock::time_point(seconds(1000));
  IntakeLine line_;
  std::deque<Entry> all_;
  std::deque<Entry*> received_;
};

constexpr IntakeOptions kOnePlace{
    .places = 1, .per_caller = 100, .least_hold = seconds(100), .most_hold = seconds(100)};

// Callers whose entries take different times hold the place for the same time.
TEST(IntakeSharesTest, CallersGetTheSameTimeNotTheSameNumber) {
  const milliseconds times[] = {milliseconds(300), milliseconds(100), milliseconds(50)};
  Line line(kOnePlace);
  std::map<std::uintptr_t, std::int64_t> held;
  for (std::uintptr_t caller = 0; caller < 3; ++caller) {
    for (int i = 0; i < 3; ++i) line.Join(caller);
  }
  for (int i = 0; i < 300; ++i) {
    const std::uintptr_t caller = line.receives();
    held[caller] += times[caller].count();
    line.Join(caller);
    ASSERT_TRUE(line.Next(times[caller]).has_value());
    if (i < 30) continue;
    for (const auto& [one, time] : held) ASSERT_NEAR(static_cast<double>(time), static_cast<double>(held[0]), 600) << i;
  }
}

// Each caller is new and brings the next: those that have waited have their turns.
TEST(IntakeSharesTest, AStreamOfNewCallersStarvesNobody) {
  Line line(kOnePlace);
  for (int i = 0; i < 30; ++i) line.Join(0);
  int of_first = 0;
  for (std::uintptr_t caller = 1; caller <= 40; ++caller) {
    line.Join(caller);
    const std::optional<std::uintptr_t> next = line.Next(milliseconds(100));
    ASSERT_TRUE(next.has_value());
    if (*next == 0) ++of_first;
  }
  EXPECT_GE(of_first, 5);
  EXPECT_LE(of_first, 20);
}

// Of one caller, one entry more than its limit waits, and of all, one more than there are places: exactly.
TEST(IntakeSharesTest, LimitsHoldExactlyAndComeBack) {
  for (const int places : {1, 2, 5}) {
    for (const int per_caller : {1, 2, 7}) {
      IntakeLine line({.places = places, .per_caller = per_caller, .least_hold = seconds(1), .most_hold = seconds(1)});
      Clock::time_point now(seconds(1000));
      TooLong too_long;
      // Ways in which entries leave; afterwards all is free again.
      enum class Way { kReceived, kReceiving, kExpired, kExpiredAndReceived };
      for (const Way way : {Way::kReceived, Way::kReceiving, Way::kExpired, Way::kExpiredAndReceived}) {
        std::deque<Entry> entries(static_cast<std::size_t>(places + 1));
        for (int i = 0; i < places; ++i) {
          ASSERT_EQ(line.Join(entries[static_cast<std::size_t>(i)], Caller(static_cast<std::uintptr_t>(i)),
                              Clock::time_point::max(), now, too_long),
                    Joined::kBegins)
              << places << " places, after way " << static_cast<int>(way);
        }
        ASSERT_EQ(line.Join(entries.back(), Caller(100), Clock::time_point::max(), now, too_long), Joined::kWaits);
        ASSERT_TRUE(line.Leave(entries.back(), now));
        if (way == Way::kExpired || way == Way::kExpiredAndReceived) {
          now += seconds(2);
          EXPECT_EQ(line.Expire(now), Clock::time_point::max());
        }
        for (Entry& entry : entries) {
          if (way == Way::kReceived || way == Way::kExpiredAndReceived) line.Received(entry, now);
          EXPECT_FALSE(line.Leave(entry, now));
          EXPECT_TRUE(IntakeLine::Outside(entry));
        }
        EXPECT_EQ(line.receiving(), 0);
        EXPECT_EQ(line.waiting(), 0U);
        // One caller alone, whose entries are received at once.
        std::deque<Entry> of_one(static_cast<std::size_t>(per_caller + 1));
        for (int i = 0; i < per_caller; ++i) {
          Entry& entry = of_one[static_cast<std::size_t>(i)];
          ASSERT_EQ(line.Join(entry, Caller(0), Clock::time_point::max(), now, too_long), Joined::kBegins)
              << per_caller << " of a caller, after way " << static_cast<int>(way);
          if (way == Way::kReceived) line.Received(entry, now);
          if (way != Way::kReceived && i + 1 == places) break;
        }
        if (way == Way::kReceived) {
          ASSERT_EQ(line.Join(of_one.back(), Caller(0), Clock::time_point::max(), now, too_long), Joined::kWaits);
        }
        for (Entry& entry : of_one) line.Leave(entry, now);
      }
    }
  }
}

}  // namespace
}  // namespace attnd::schedule
