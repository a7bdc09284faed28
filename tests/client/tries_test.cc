// When a call is sent again, by a clock in the test's hands: after which errors, how soon, how often, and until when.
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "attnd/error_detail.h"
#include "client/src/retry.h"
#include "fake_server.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace attnd::client {
namespace {

using testing::HasSubstr;

constexpr absl::Duration kTick = absl::Nanoseconds(1);

class TriesTest : public testing::Test {
 protected:
  TriesTest() {
    EXPECT_TRUE(channel_->WaitForConnected(std::chrono::system_clock::now() + std::chrono::seconds(20)));
    options_.initial_backoff = absl::Seconds(1);
    options_.max_backoff = absl::Seconds(10);
    options_.max_time = absl::Hours(1);
    options_.reserve_per_second = 1000;
  }
  std::shared_ptr<RetryPolicy> Policy(bool connected = true) {
    auto policy = std::make_shared<RetryPolicy>(options_, channel_, [this] { return now_; });
    if (connected) policy->NoteConnected();
    return policy;
  }
  Tries NewTries(const CallOptions& call = {}) { return Tries(Policy(), call); }

  // The time until Wait lets the call go on, by asking at each step from `from` on; `to` if it does not by then.
  absl::Duration WaitsFor(Tries& tries, absl::Duration step, absl::Duration to) {
    const absl::Time start = now_;
    for (; now_ - start < to; now_ += step) {
      const std::optional<absl::Duration> wait = tries.Wait();
      if (!wait.has_value()) return now_ - start;
      EXPECT_GT(*wait, absl::ZeroDuration());
      EXPECT_LE(*wait, absl::Milliseconds(20)) << "a cancellation is seen soon";
    }
    return to;
  }

  FakeAttention service_;
  FakeServer server_{{&service_}};
  const std::shared_ptr<grpc::Channel> channel_ =
      grpc::CreateChannel(server_.target(), grpc::InsecureChannelCredentials());
  RetryOptions options_;
  absl::Time now_ = absl::UnixEpoch() + absl::Hours(1);
};

TEST_F(TriesTest, EachCodeIsRepeatedOrNot) {
  for (int code = 1; code <= 16; ++code) {
    for (const char* message : {"refused", "Stream removed", "Stream removed by a proxy", "the Stream removed"}) {
      const absl::Status status(static_cast<absl::StatusCode>(code), message);
      Tries tries = NewTries();
      const bool removed = absl::string_view(message).substr(0, 14) == "Stream removed";
      const bool expected = status.code() == absl::StatusCode::kUnavailable ||
                            status.code() == absl::StatusCode::kCancelled ||
                            (status.code() == absl::StatusCode::kUnknown && removed);
      EXPECT_EQ(tries.Again(status), expected) << status;
    }
  }
}

TEST_F(TriesTest, NothingIsRepeatedWhereItMayNotBe) {
  const absl::Status refused = absl::UnavailableError("refused");
  CallOptions cancelled;
  cancelled.cancellation = std::make_shared<Cancellation>();
  cancelled.cancellation->Cancel();
  EXPECT_FALSE(NewTries(cancelled).Again(absl::CancelledError("")));
  options_.enabled = false;
  EXPECT_FALSE(NewTries().Again(refused));
  options_.enabled = true;
  // Never connected: nobody listens there.
  const auto nobody = grpc::CreateChannel("unix:///nonexistent/s", grpc::InsecureChannelCredentials());
  EXPECT_FALSE(nobody->WaitForConnected(std::chrono::system_clock::now() + std::chrono::milliseconds(100)));
  ASSERT_EQ(nobody->GetState(false), GRPC_CHANNEL_TRANSIENT_FAILURE);
  for (const bool wait : {false, true}) {
    options_.wait_for_first_server = wait;
    Tries tries(std::make_shared<RetryPolicy>(options_, nobody, [this] { return now_; }), {});
    EXPECT_EQ(tries.Again(refused), wait);
  }
}

// Between half the backoff and all of it, which doubles up to the most.
TEST_F(TriesTest, TheBackoffDoublesUpToItsMost) {
  const std::shared_ptr<RetryPolicy> policy = Policy();
  int early = 0, late = 0;
  for (int i = 0; i < 40; ++i) {
    Tries tries(policy, {});
    for (const absl::Duration backoff : {absl::Seconds(1), absl::Seconds(2), absl::Seconds(4), absl::Seconds(8),
                                         absl::Seconds(10), absl::Seconds(10)}) {
      ASSERT_TRUE(tries.Again(absl::UnavailableError("")));
      now_ += backoff / 2 - kTick;
      ASSERT_TRUE(tries.Wait().has_value()) << "sooner than half of " << backoff;
      now_ += backoff / 4;
      const bool goes_on = !tries.Wait().has_value();
      ++(goes_on ? early : late);
      now_ += backoff / 4 + kTick;
      if (!goes_on) {
        ASSERT_FALSE(tries.Wait().has_value()) << "later than " << backoff;
      }
      ASSERT_FALSE(tries.over());
    }
  }
  EXPECT_GT(early, 40) << "of 240, which are spread";
  EXPECT_GT(late, 40) << "of 240, which are spread";
}

TEST_F(TriesTest, NoAttemptBeginsAtItsEndOrLater) {
  struct Case {
    absl::Duration max_time, deadline, end;
  };
  for (const Case& c : {Case{absl::Seconds(30), absl::InfiniteDuration(), absl::Seconds(30)},
                        Case{absl::Seconds(30), absl::Seconds(20), absl::Seconds(20)},
                        Case{absl::Seconds(30), absl::Seconds(40), absl::Seconds(30)},
                        Case{absl::ZeroDuration(), absl::Seconds(20), absl::ZeroDuration()}}) {
    options_.max_time = c.max_time;
    for (const absl::Duration before : {kTick, absl::ZeroDuration()}) {
      CallOptions call;
      call.deadline = now_ + c.deadline;
      options_.initial_backoff = absl::Milliseconds(1);
      Tries tries = NewTries(call);
      ASSERT_TRUE(tries.Again(absl::UnavailableError("refused")));
      now_ += c.end - before;
      const bool in_time = before > absl::ZeroDuration() && c.end > absl::ZeroDuration();
      EXPECT_FALSE(tries.Wait().has_value());
      EXPECT_EQ(tries.over(), !in_time) << c.end << " " << before;
      if (!in_time) {
        EXPECT_EQ(tries.last(), absl::UnavailableError("refused"));
        EXPECT_THAT(std::string(tries.Explain(tries.last()).message()), HasSubstr("no time for another"));
      }
    }
    // Known at once if the backoff ends later.
    CallOptions call;
    call.deadline = now_ + c.deadline;
    options_.initial_backoff = options_.max_backoff = absl::Hours(1);
    Tries tries = NewTries(call);
    ASSERT_TRUE(tries.Again(absl::UnavailableError("refused")));
    EXPECT_FALSE(tries.Wait().has_value());
    EXPECT_TRUE(tries.over());
    options_.max_backoff = absl::Seconds(10);
  }
}

TEST_F(TriesTest, ACancellationEndsTheWait) {
  CallOptions call;
  call.cancellation = std::make_shared<Cancellation>();
  Tries tries = NewTries(call);
  ASSERT_TRUE(tries.Again(absl::UnavailableError("refused")));
  EXPECT_TRUE(tries.Wait().has_value());
  call.cancellation->Cancel();
  EXPECT_FALSE(tries.Wait().has_value());
  EXPECT_TRUE(tries.over());
  EXPECT_EQ(tries.last().code(), absl::StatusCode::kCancelled);
}

// The channel of a server that is away: the call waits, and spends nothing.
TEST_F(TriesTest, AServerThatIsAwayIsWaitedForUntilTheEnd) {
  const auto away = grpc::CreateChannel("unix:///nonexistent/s", grpc::InsecureChannelCredentials());
  options_.budget = 0;
  options_.reserve_per_second = 0;
  options_.max_time = absl::Seconds(30);
  const auto policy = std::make_shared<RetryPolicy>(options_, away, [this] { return now_; });
  policy->NoteConnected();
  Tries tries(policy, {});
  const absl::Time start = now_;
  ASSERT_TRUE(tries.Again(absl::UnavailableError("lost")));
  EXPECT_EQ(WaitsFor(tries, absl::Milliseconds(500), absl::Minutes(1)), absl::Seconds(30));
  EXPECT_TRUE(tries.over());
  EXPECT_EQ(now_, start + absl::Seconds(30));
  EXPECT_THAT(std::string(tries.Explain(tries.last()).message()), HasSubstr("no time")) << "not the budget";
}

TEST_F(TriesTest, EachRepeatIsPaidFor) {
  options_.reserve_per_second = 0.3;  // three in all
  options_.budget = 0;
  const std::shared_ptr<RetryPolicy> policy = Policy();
  int repeats = 0;
  for (int call = 0; call < 5; ++call) {
    Tries tries(policy, {});
    ASSERT_TRUE(tries.Again(absl::UnavailableError("refused")));
    now_ += absl::Seconds(1) - absl::Milliseconds(999);
    WaitsFor(tries, absl::Milliseconds(100), absl::Seconds(2));
    if (!tries.over()) {
      ++repeats;
    } else {
      EXPECT_THAT(std::string(tries.Explain(tries.last()).message()), HasSubstr("budget"));
    }
  }
  // And what has come in meanwhile: less than one each second.
  EXPECT_GE(repeats, 3);
  EXPECT_LE(repeats, 4);
  // Calls earn; those of a client that does not repeat do not.
  options_.budget = 0.5;
  options_.reserve_per_second = 0;
  for (const bool enabled : {true, false}) {
    options_.enabled = enabled;
    const std::shared_ptr<RetryPolicy> earning = Policy();
    for (int i = 0; i < 8; ++i) Tries(earning, {});
    int spent = 0;
    while (spent < 100 && earning->budget.Spend()) ++spent;
    EXPECT_EQ(spent, enabled ? 4 : 0);
  }
}

TEST_F(TriesTest, TheBudgetIsSavedUpToItsMost) {
  RetryBudget budget(1, 0, [this] { return now_; });
  for (int i = 0; i < 3000; ++i) budget.Earn();
  int spent = 0;
  while (spent < 5000 && budget.Spend()) ++spent;
  EXPECT_EQ(spent, static_cast<int>(RetryBudget::kMaxEarned));
}

TEST_F(TriesTest, TheErrorKeepsItsDetailAndTellsTheOneBefore) {
  Tries tries = NewTries();
  ASSERT_TRUE(tries.Again(absl::UnavailableError("first")));
  now_ += absl::Milliseconds(1500);
  const absl::Status last = ErrorWithDetail(absl::StatusCode::kNotFound, {"model", "one", "none"});
  ASSERT_FALSE(tries.Again(last));
  const absl::Status told = tries.Explain(last);
  EXPECT_EQ(told.code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(GetErrorDetail(told).has_value());
  EXPECT_EQ(GetErrorDetail(told)->field, "model");
  EXPECT_THAT(std::string(told.message()), HasSubstr("attempt 2 in 1.5s; the one before: UNAVAILABLE: first"));
}

}  // namespace
}  // namespace attnd::client
