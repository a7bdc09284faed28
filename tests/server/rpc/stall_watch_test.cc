// What the watch does to calls; tests/e2e/stall_test.cc has callers that do not read.

#include "server/rpc/stall_watch.h"

#include <malloc.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "one_call_server.h"
#include "wait.h"

namespace attnd::server {
namespace {

using Clock = StallWatch::Clock;
using grpc::StatusCode;
using testing::HasSubstr;
using testing::SizeIs;

// Looks all the time, and finds nothing that is due.
constexpr StallLimit kLooksOften = {.patience = absl::Milliseconds(20), .bytes_per_second = 1};
constexpr std::int64_t kYear = std::int64_t{365} * 24 * 3600;

TEST(StallWatchTest, WithoutPatienceNothingIsWatched) {
  Counters counters;
  StallWatch watch({}, counters, [](const std::string&) { FAIL(); });
  EXPECT_FALSE(watch.watches());
  StallWatch::Transfer write;
  watch.Begin(write, nullptr, 1);
  watch.End(write);
  watch.End(write);
}

TEST(StallWatchTest, WritesBeginAndEndInAnyOrder) {
  Counters counters;
  StallWatch watch(kLooksOften, counters, [](const std::string&) { FAIL(); });
  EXPECT_TRUE(watch.watches());
  std::vector<StallWatch::Transfer> writes(7);
  for (const std::vector<std::size_t>& order :
       {std::vector<std::size_t>{0, 1, 2, 3, 4, 5, 6}, {6, 5, 4, 3, 2, 1, 0}, {3, 0, 6, 2, 4, 1, 5}}) {
    for (StallWatch::Transfer& write : writes) watch.Begin(write, nullptr, kYear);
    for (const std::size_t i : order) watch.End(writes[i]);
    for (StallWatch::Transfer& write : writes) watch.End(write);  // again: nothing happens
  }
  EXPECT_EQ(counters.stalled_writes.load(), 0);
}

TEST(StallWatchTest, ManyThreadsBeginAndEnd) {
  Counters counters;
  StallWatch watch(kLooksOften, counters, [](const std::string&) { FAIL(); });
  std::vector<std::thread> threads;
  std::deque<StallWatch::Transfer> handed_over(8);
  for (std::size_t t = 0; t < handed_over.size(); ++t) {
    threads.emplace_back([&watch, &handed_over, t] {
      std::vector<StallWatch::Transfer> own(5);
      for (int i = 0; i < 2000; ++i) {
        for (StallWatch::Transfer& write : own) watch.Begin(write, nullptr, kYear);
        for (StallWatch::Transfer& write : own) watch.End(write);
      }
      watch.Begin(handed_over[t], nullptr, kYear);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (StallWatch::Transfer& write : handed_over) watch.End(write);  // by another thread
  EXPECT_EQ(counters.stalled_writes.load(), 0);
}

enum class Kind : std::uint8_t { kWrite, kRead };
constexpr Kind kKinds[] = {Kind::kWrite, Kind::kRead};

// Calls whose transfers begin when they arrive. A call is answered when the test finishes it, or when it is cancelled.
class WatchedCalls {
 public:
  explicit WatchedCalls(const StallLimit& limit)
      : watch_(limit, counters_, [this](const std::string& line) {
          absl::MutexLock lock(&mutex_);
          lines_.emplace_back(Clock::now(), line);
        }) {}
  ~WatchedCalls() { server_.Stop(); }

  // A call whose transfer of `bytes` has begun when this returns.
  std::unique_ptr<OneCall> Begin(Kind kind, std::int64_t bytes) {
    {
      absl::MutexLock lock(&mutex_);
      next_ = {kind, bytes};
    }
    const int before = begun_.load();
    auto call = std::make_unique<OneCall>(server_);
    EXPECT_TRUE(test::Becomes([&] { return begun_.load() > before; })) << "a call does not arrive";
    return call;
  }
  // Finishes the calls that are under way.
  void FinishAll() {
    absl::MutexLock lock(&mutex_);
    for (Held* const held : held_) held->Answer(grpc::Status::OK);
  }
  bool AllOver() {
    absl::MutexLock lock(&mutex_);
    return held_.empty();
  }
  std::vector<std::pair<Clock::time_point, std::string>> lines() {
    absl::MutexLock lock(&mutex_);
    return lines_;
  }
  std::int64_t writes() const { return counters_.stalled_writes.load(); }
  std::int64_t reads() const { return counters_.stalled_reads.load(); }
  StallWatch& watch() { return watch_; }

 private:
  class Held final : public grpc::ServerUnaryReactor {
   public:
    Held(WatchedCalls& calls, grpc_call* call, Kind kind, std::int64_t bytes) : calls_(calls) {
      if (kind == Kind::kRead) {
        calls.watch_.BeginRead(transfer_, call, bytes);
      } else {
        calls.watch_.Begin(transfer_, call, bytes);
      }
    }
    // Once; more often does nothing.
    void Answer(const grpc::Status& status) {
      if (!answered_.exchange(true)) Finish(status);
    }
    void OnCancel() override { Answer(grpc::Status::CANCELLED); }
    void OnDone() override {
      calls_.watch_.End(transfer_);
      {
        absl::MutexLock lock(&calls_.mutex_);
        calls_.held_.erase(std::find(calls_.held_.begin(), calls_.held_.end(), this));
      }
      delete this;
    }

   private:
    WatchedCalls& calls_;
    StallWatch::Transfer transfer_;
    std::atomic<bool> answered_{false};
  };

  grpc::ServerUnaryReactor* Arrived(grpc::CallbackServerContext& context) {
    absl::MutexLock lock(&mutex_);
    held_.push_back(new Held(*this, context.c_call(), next_.first, next_.second));
    ++begun_;
    return held_.back();
  }

  absl::Mutex mutex_;
  std::pair<Kind, std::int64_t> next_ ABSL_GUARDED_BY(mutex_);
  std::vector<Held*> held_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::pair<Clock::time_point, std::string>> lines_ ABSL_GUARDED_BY(mutex_);
  std::atomic<int> begun_{0};
  Counters counters_;
  StallWatch watch_;
  OneCallServer server_{[this](grpc::CallbackServerContext& context, grpc::ByteBuffer*) { return Arrived(context); }};
};

constexpr StallLimit kImpatient = {.patience = absl::Milliseconds(20), .bytes_per_second = 1 << 30};

TEST(StalledCallTest, EndsWithWhatItWaitedForAndIsCounted) {
  for (const Kind kind : kKinds) {
    const bool is_read = kind == Kind::kRead;
    WatchedCalls calls(kImpatient);
    const auto call = calls.Begin(kind, 12345);
    const grpc::Status& status = call->Await();
    EXPECT_EQ(status.error_code(), StatusCode::DEADLINE_EXCEEDED);
    EXPECT_EQ(status.error_message(),
              absl::StrCat(is_read ? "the request (12345 bytes at most) did not arrive"
                                   : "the result (12345 bytes) was not taken",
                           " within 20ms and a second for each 1073741824 bytes (--stall_seconds, --min_rate)"));
    EXPECT_EQ(calls.writes(), is_read ? 0 : 1);
    EXPECT_EQ(calls.reads(), is_read ? 1 : 0);
    EXPECT_TRUE(test::Becomes([&] { return calls.AllOver(); }));
    ASSERT_THAT(calls.lines(), SizeIs(1));
    EXPECT_THAT(calls.lines()[0].second, HasSubstr("a call of ipv4:127.0.0.1:"));
    EXPECT_THAT(calls.lines()[0].second, HasSubstr(status.error_message()));
  }
}

TEST(StalledCallTest, EveryByteHasItsTime) {
  WatchedCalls calls(kLooksOften);
  // Begun first: without time for their bytes, they would be due first.
  const auto day = calls.Begin(Kind::kWrite, 24 * 3600);
  const auto endless = calls.Begin(Kind::kRead, std::numeric_limits<std::int64_t>::max());
  for (int i = 1; i <= 3; ++i) {
    EXPECT_EQ(calls.Begin(Kind::kWrite, 0)->Await().error_code(), StatusCode::DEADLINE_EXCEEDED);
    EXPECT_EQ(calls.writes(), i);
  }
  EXPECT_EQ(calls.reads(), 0);
  EXPECT_FALSE(day->done());
  EXPECT_FALSE(endless->done());
  calls.FinishAll();
  EXPECT_TRUE(day->Await().ok());
  EXPECT_TRUE(endless->Await().ok());
}

TEST(StalledCallTest, WhatHasEndedIsNotLookedAtAgain) {
  for (const Kind kind : kKinds) {
    WatchedCalls calls(kImpatient);
    EXPECT_FALSE(calls.Begin(kind, 0)->Await().ok());
    EXPECT_TRUE(test::Becomes([&] { return calls.AllOver(); }));
    // The watch has looked several times when these have stalled.
    for (int i = 0; i < 5; ++i) EXPECT_FALSE(calls.Begin(kind, 0)->Await().ok());
    EXPECT_EQ(calls.writes() + calls.reads(), 6) << "each once";
  }
  // Calls that were answered in time, in every order. On a busy machine some are too late, and some are found just when
  // they end; all of them would be found later if they stayed in the list.
  WatchedCalls calls(kImpatient);
  int answered = 0;
  for (int round = 0; round < 20; ++round) {
    std::vector<std::unique_ptr<OneCall>> some;
    for (int i = 0; i < 3; ++i) some.push_back(calls.Begin(kKinds[(round + i) % 2], 0));
    calls.FinishAll();
    for (const auto& call : some) answered += call->Await().ok() ? 1 : 0;
  }
  EXPECT_TRUE(test::Becomes([&] { return calls.AllOver(); }));
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(calls.Begin(Kind::kWrite, 0)->Await().ok());
  EXPECT_LE(calls.writes() + calls.reads(), 60 - answered + 3 + answered / 2) << answered;
}

TEST(StalledCallTest, OneOfManyEndsAloneWhereverItStands) {
  for (std::size_t due = 0; due < 4; ++due) {
    WatchedCalls calls(kLooksOften);
    std::vector<std::unique_ptr<OneCall>> all;
    for (std::size_t i = 0; i < 4; ++i) all.push_back(calls.Begin(Kind::kWrite, i == due ? 0 : kYear));
    EXPECT_EQ(all[due]->Await().error_code(), StatusCode::DEADLINE_EXCEEDED) << due;
    calls.FinishAll();
    for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(all[i]->Await().ok(), i != due) << i << " of " << due;
    EXPECT_EQ(calls.writes(), 1);
  }
}

// As a stopping server does: messages that have begun to arrive since `then`, and results, have their time.
TEST(StalledCallTest, OfReadsThoseBegunBeforeAreEndedByAStop) {
  WatchedCalls calls({.patience = absl::Hours(1), .bytes_per_second = 1});
  const auto old_write = calls.Begin(Kind::kWrite, 0);
  const auto old_read = calls.Begin(Kind::kRead, 0);
  const Clock::time_point then = Clock::now();
  const auto young_read = calls.Begin(Kind::kRead, 0);
  calls.watch().EndReads(then);
  EXPECT_EQ(old_read->Await().error_code(), StatusCode::UNAVAILABLE);
  EXPECT_EQ(old_read->Await().error_message(), "the server is stopping");
  calls.watch().EndReads(then);  // again: there are none left
  calls.FinishAll();
  EXPECT_TRUE(old_write->Await().ok());
  EXPECT_TRUE(young_read->Await().ok());
  EXPECT_EQ(calls.writes() + calls.reads(), 0) << "they have not stalled";
}

// A call that the watch ends is freed, memory and all, as one that it does not end.
TEST(StalledCallTest, NothingIsLeftOfACallThatIsEnded) {
  const auto used = [] { return static_cast<std::int64_t>(mallinfo2().uordblks); };
  constexpr int kCalls = 150;
  const auto grows = [&](auto end) {
    std::int64_t least = std::numeric_limits<std::int64_t>::max();
    for (int attempt = 0; attempt < 3; ++attempt) {
      const std::int64_t before = used();
      end();
      least = std::min(least, used() - before);
    }
    return least / kCalls;
  };
  constexpr std::int64_t kLeastOfACall = 500;  // bytes; a call's arena alone has more
  WatchedCalls ended({.patience = absl::Hours(1), .bytes_per_second = 1});
  EXPECT_LT(grows([&] {
              for (int i = 0; i < kCalls; ++i) {
                const auto read = ended.Begin(Kind::kRead, 0);
                ended.watch().EndReads(Clock::now() + std::chrono::seconds(1));
                EXPECT_FALSE(read->Await().ok());
              }
              EXPECT_TRUE(test::Becomes([&] { return ended.AllOver(); }));
            }),
            kLeastOfACall);
  WatchedCalls stalled({.patience = absl::Milliseconds(1), .bytes_per_second = 1 << 30});
  EXPECT_LT(grows([&] {
              std::vector<std::unique_ptr<OneCall>> writes;
              for (int i = 0; i < kCalls; ++i) writes.push_back(stalled.Begin(Kind::kWrite, 0));
              for (const auto& write : writes) EXPECT_FALSE(write->Await().ok());
              writes.clear();
              EXPECT_TRUE(test::Becomes([&] { return stalled.AllOver(); }));
            }),
            kLeastOfACall);
}

// A line at most once a second, which says how many calls were ended since the one before.
TEST(StalledCallTest, LinesCountWhatTheyLeaveOut) {
  WatchedCalls calls({.patience = absl::Milliseconds(1), .bytes_per_second = 1 << 30});
  int ended = 0;
  const absl::Time deadline = absl::Now() + absl::Seconds(20);
  while (calls.lines().size() < 2 && absl::Now() < deadline) {
    EXPECT_FALSE(calls.Begin(Kind::kWrite, 0)->Await().ok());
    ++ended;
  }
  const auto lines = calls.lines();
  ASSERT_THAT(lines, SizeIs(2));
  EXPECT_THAT(lines[0].second, HasSubstr("(1 times since this was said last)"));
  EXPECT_THAT(lines[1].second, HasSubstr(absl::StrCat("(", ended - 1, " times since this was said last)")));
  EXPECT_GE(lines[1].first - lines[0].first, std::chrono::milliseconds(990));
}

TEST(StallWatchTest, EndsHoweverLongItsPatienceIs) {
  Counters counters;
  auto* const watch = new StallWatch({.patience = absl::Hours(24)}, counters, nullptr);
  EXPECT_TRUE(watch->watches());
  ASSERT_TRUE(test::Ends([watch] { delete watch; }));
}

}  // namespace
}  // namespace attnd::server
