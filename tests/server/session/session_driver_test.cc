// What a session does between its first message and its end (session_end_test.cc has the ends).
#include "server/session/session_driver.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/rpc/proto_time.h"
#include "server/rpc/status.h"
#include "session/test_session.h"
#include "wait.h"

namespace attnd::server {
namespace {

using absl::StatusCode;
using Clock = OpenSession::Clock;
using testing::HasSubstr;

constexpr std::int64_t kLongTokens = 1024;
const v1::SessionOpen kLongOpen = PlainOpen(2, 0, 4000);

v1::SessionRequest LongStep(std::uint64_t number) { return PlainStep(kLongOpen, number, kLongTokens, kLongTokens); }

std::int64_t SizeOf(const v1::SessionRequest& request) { return static_cast<std::int64_t>(request.ByteSizeLong()); }

Clock::time_point In(absl::Duration time) { return Clock::now() + absl::ToChronoNanoseconds(time); }

std::int64_t ReservedBytes(const v1::SessionOpen& open) {
  const model::Registry registry{model::RegistryOptions{}};
  const absl::StatusOr<SessionShape> shape = CheckOpen(open, Limits(), registry);
  EXPECT_TRUE(shape.ok()) << shape.status();
  return shape.ok() ? shape->reserved_bytes() : 0;
}

// The moment since which a session is idle.
Clock::time_point ActiveAt(TestSession& session) {
  const Clock::time_point now = Clock::now();
  const std::optional<OpenSession::Idle> idle = session.IdleFor(now);
  EXPECT_TRUE(idle.has_value());
  return idle.has_value() ? now - absl::ToChronoNanoseconds(idle->time) : now;
}

// The moment since which it is open.
Clock::time_point BegunAt(TestSession& session) {
  const Clock::time_point now = Clock::now();
  v1::SessionInfo info;
  session.Describe(now, info);
  return now - std::chrono::seconds(info.age().seconds()) - std::chrono::nanoseconds(info.age().nanos());
}

TEST(SessionDriverTest, ReadsTwoStepsAheadAndNoMore) {
  TestHost host;
  const std::shared_ptr<TestSession> session = host.Open(kLongOpen);
  EXPECT_EQ(session->asks(), 2) << "the opening, and the first step";
  host.kernel.Hold();
  session->Take(LongStep(1));
  ASSERT_TRUE(host.kernel.AwaitHeld());
  EXPECT_EQ(session->asks(), 3);
  session->Take(PlainStep(kLongOpen, 2, 1, 0));
  EXPECT_EQ(session->asks(), 4);
  session->Take(PlainStep(kLongOpen, 3, 1, 0));
  EXPECT_EQ(session->asks(), 4) << "two wait already";
  host.kernel.Release();
  for (const std::uint64_t number : {1U, 2U, 3U}) EXPECT_EQ(session->TakeAnswer().result().step(), number);
  EXPECT_TRUE(test::Becomes([&] { return session->asks() == 5; })) << "one message is asked for at a time";
}

TEST(SessionDriverTest, BeginsNoStepWhileAnAnswerWaitsBehindAnother) {
  TestHost host;
  const v1::SessionOpen open = PlainOpen();
  const std::shared_ptr<TestSession> session = host.Open(open);
  const auto steps = [&] {
    v1::SessionInfo info;
    session->Describe(Clock::now(), info);
    return info.steps();
  };
  for (const std::uint64_t number : {1U, 2U, 3U, 4U}) session->Take(PlainStep(open, number, 1, 0));
  EXPECT_EQ(steps(), 2U) << "one is written, one waits for it";
  EXPECT_EQ(session->asks(), 5) << "two steps wait";
  for (const std::uint64_t number : {1U, 2U, 3U, 4U}) {
    EXPECT_EQ(session->Answer().result().step(), number);
    session->Written();
    EXPECT_EQ(steps(), std::min<std::uint64_t>(number + 2, 4));
  }
  EXPECT_EQ(session->answers(), 5);
}

// In every moment of its way through the session, a step's bytes are in the ledger once.
TEST(SessionDriverTest, MessagesAndResultsAreChargedAsLongAsTheyAreHeld) {
  TestHost host;
  const std::shared_ptr<TestSession> session = host.Open(kLongOpen);
  const std::int64_t reserved = host.opened.reserved_bytes();
  EXPECT_EQ(host.session_account->held_bytes(), reserved);
  EXPECT_EQ(host.account->held_bytes(), 0) << "the calls' share is left alone";
  host.kernel.Hold();
  const v1::SessionRequest first = LongStep(1);
  session->Take(first);
  ASSERT_TRUE(host.kernel.AwaitHeld());
  const std::int64_t output = 2 * kHeads * kLongTokens * 8 * 4;
  const std::int64_t computing = host.account->held_bytes();
  EXPECT_GE(computing, SizeOf(first) + output);
  std::int64_t waiting = 0;
  for (const std::uint64_t number : {2U, 3U}) {
    const v1::SessionRequest step = PlainStep(kLongOpen, number, 100, 0);
    session->Take(step);
    waiting += SizeOf(step);
    EXPECT_EQ(host.account->held_bytes(), computing + waiting);
  }
  host.kernel.Release();
  EXPECT_EQ(session->Answer().result().code(), 0);
  // Its step is computed before its answer is given, and so the second is done, too.
  EXPECT_TRUE(test::Becomes([&] {
    return host.account->held_bytes() == output + SizeOf(PlainStep(kLongOpen, 3, 100, 0));
  })) << host.account->held_bytes() - output;
  session->Written();
  EXPECT_EQ(session->TakeAnswer().result().step(), 2U);
  EXPECT_EQ(session->TakeAnswer().result().step(), 3U);
  EXPECT_EQ(host.account->held_bytes(), 0);
  EXPECT_EQ(AttentionEngine::received_bytes(), 0);
  EXPECT_EQ(host.session_account->held_bytes(), reserved);
}

TEST(SessionDriverTest, AnAnswerIsGivenWithItsResultsBytesAndNothingElse) {
  TestHost host;
  const std::shared_ptr<TestSession> session = host.Open(kLongOpen);
  session->Take(LongStep(1));
  EXPECT_EQ(session->Answer().result().code(), 0);
  EXPECT_EQ(host.account->held_bytes(), 2 * kHeads * kLongTokens * 8 * 4);
  EXPECT_EQ(AttentionEngine::received_bytes(), 0) << "its message is still held";
}

TEST(SessionDriverTest, AMessageThatFindsNoMemoryIsRefusedAndTheSessionGoesOn) {
  const v1::SessionOpen open = PlainOpen(1, 0, 2000);
  const v1::SessionRequest large = PlainStep(open, 1, 1000, 0);
  for (const std::int64_t beyond : {0, 1}) {
    TestHost host({}, ReservedBytes(open) + SizeOf(large) - beyond);
    const std::shared_ptr<TestSession> session = host.Open(open);
    session->Take(large);
    const v1::SessionStepResult result = session->TakeAnswer().result();
    EXPECT_EQ(result.code(), beyond == 0 ? 0 : static_cast<int>(StatusCode::kResourceExhausted)) << result.message();
    EXPECT_EQ(host.account->held_bytes(), 0);
    session->Take(PlainStep(open, beyond == 0 ? 2 : 1, 1, 0));
    EXPECT_EQ(session->TakeAnswer().result().code(), 0);
  }
}

// It waits for its refusal without its bytes.
TEST(SessionDriverTest, AMessageThatIsRefusedIsNotKept) {
  const v1::SessionOpen open = PlainOpen(1, 0, 2000);
  const v1::SessionRequest large = PlainStep(open, 3, 1000, 0);
  for (const bool fits : {false, true}) {
    TestHost host({}, ReservedBytes(open) + SizeOf(large) - (fits ? 0 : 1));
    const std::shared_ptr<TestSession> session = host.Open(open);
    for (const std::uint64_t number : {1U, 2U}) session->Take(PlainStep(open, number, 1, 0));
    EXPECT_EQ(AttentionEngine::received_bytes(), 0);
    session->Take(large);
    EXPECT_EQ(AttentionEngine::received_bytes() > 0, fits);
    EXPECT_EQ(host.account->held_bytes(), fits ? SizeOf(large) : 0);
  }
}

TEST(SessionDriverTest, CancelsTheStepOfThatNumberAlone) {
  for (const std::uint64_t cancelled : {1U, 2U, 3U, 4U}) {
    SCOPED_TRACE(cancelled);
    TestHost host;
    const std::shared_ptr<TestSession> session = host.Open(kLongOpen);
    host.kernel.Hold();
    session->Take(LongStep(1));
    ASSERT_TRUE(host.kernel.AwaitHeld());
    session->Take(cancelled == 1 ? PlainStep(kLongOpen, 1, 1, 0) : PlainStep(kLongOpen, 2, 1, 0));
    session->Take(CancellationOf(cancelled));
    session->Take(PlainStep(kLongOpen, cancelled == 4 ? 3 : 2, 1, 0));
    if (cancelled == 3) continue;  // there is no such step: nothing may happen to the others
    host.kernel.Release();
    for (int i = 0; i < 3; ++i) {
      const v1::SessionStepResult result = session->TakeAnswer().result();
      const bool is_it = result.step() == cancelled && (cancelled != 1 || i == 0);
      const bool follows = cancelled == 2 && i == 2;  // number 2 again
      EXPECT_EQ(result.code(), is_it && !follows ? static_cast<int>(StatusCode::kCancelled) : 0) << result.message();
    }
  }
}

TEST(SessionDriverTest, ACancelledOrLateStepChangesNothing) {
  for (const bool late : {false, true}) {
    TestHost host;
    const std::shared_ptr<TestSession> session = host.Open(kLongOpen);
    host.kernel.Hold();
    v1::SessionRequest step = LongStep(1);
    if (late) *step.mutable_step()->mutable_timeout() = ToProto(absl::Milliseconds(300));
    session->Take(step);
    ASSERT_TRUE(host.kernel.AwaitHeld());
    if (late) {
      absl::SleepFor(absl::Milliseconds(350));
    } else {
      session->Take(CancellationOf(1));
    }
    host.kernel.Release();
    EXPECT_EQ(session->TakeAnswer().result().code(),
              static_cast<int>(late ? StatusCode::kDeadlineExceeded : StatusCode::kCancelled));
    EXPECT_EQ(host.account->held_bytes(), 0);
    session->Take(PlainStep(kLongOpen, 1, 1, 1));
    EXPECT_EQ(session->TakeAnswer().result().lengths(0), 1);
  }
}

// Also one without queries, which nobody else would stop; by its own time and by that of the stream.
TEST(SessionDriverTest, AStepWhoseTimeIsOverDoesNotBegin) {
  struct Case {
    absl::Duration stream, step;
    StatusCode code;
  };
  const Case cases[] = {{absl::Hours(1), absl::ZeroDuration(), StatusCode::kDeadlineExceeded},
                        {-absl::Seconds(1), absl::Hours(1), StatusCode::kDeadlineExceeded},
                        {-absl::Seconds(1), absl::InfiniteDuration(), StatusCode::kDeadlineExceeded},
                        {absl::Hours(1), absl::Hours(1), StatusCode::kOk},
                        {absl::Hours(1), -absl::Seconds(1), StatusCode::kInvalidArgument}};
  for (const Case& c : cases) {
    TestHost host;
    SessionCaller caller = host.Caller();
    caller.deadline = In(c.stream);
    const std::shared_ptr<TestSession> session = host.Begin(caller);
    session->Take(OpeningOf(PlainOpen()));
    session->TakeAnswer();
    v1::SessionRequest step = PlainStep(PlainOpen(), 1, 1, 0);
    if (c.step < absl::InfiniteDuration()) *step.mutable_step()->mutable_timeout() = ToProto(c.step);
    session->Take(step);
    const v1::SessionStepResult result = session->TakeAnswer().result();
    EXPECT_EQ(result.code(), static_cast<int>(c.code)) << result.message();
    EXPECT_EQ(result.lengths_size(), c.code == StatusCode::kOk ? 1 : 0);
    EXPECT_EQ(host.account->held_bytes(), 0);
  }
}

TEST(SessionDriverTest, IdleAndLifeTimesAreExactAndNeverWhileItWorks) {
  TestHost host({.lease = absl::Minutes(1), .idle = absl::Minutes(10), .life = absl::Hours(24)});
  const std::shared_ptr<TestSession> session = host.Open(kLongOpen);
  const auto nanosecond = std::chrono::nanoseconds(1);
  const Clock::time_point active = ActiveAt(*session), begun = BegunAt(*session);
  EXPECT_FALSE(session->EndIfLeaseIsOver(active + std::chrono::minutes(1)));
  EXPECT_FALSE(session->EndIfOver(active + std::chrono::minutes(10)));
  EXPECT_FALSE(session->EndIfOver(begun + std::chrono::minutes(10)));
  host.kernel.Hold();
  session->Take(LongStep(1));
  ASSERT_TRUE(host.kernel.AwaitHeld());
  EXPECT_FALSE(session->IdleFor(In(absl::Hours(1))).has_value());
  EXPECT_FALSE(session->EndIfLeaseIsOver(In(absl::Hours(1)))) << "it computes";
  EXPECT_FALSE(session->EndIfOver(In(absl::Hours(1)))) << "it computes";
  v1::SessionInfo info;
  session->Describe(In(absl::Hours(1)), info);
  EXPECT_EQ(info.idle().seconds(), 0) << "it computes";
  EXPECT_FALSE(session->EndIfOver(begun + std::chrono::hours(24)));
  host.kernel.Release();
  EXPECT_EQ(session->Answer().result().code(), 0);
  EXPECT_FALSE(session->IdleFor(In(absl::Hours(1))).has_value());
  EXPECT_FALSE(session->EndIfLeaseIsOver(In(absl::Hours(1)))) << "it answers";
  EXPECT_FALSE(session->EndIfOver(In(absl::Hours(1)))) << "it answers";
  session->Written();
  // Each by a nanosecond.
  const std::shared_ptr<TestSession> second = host.Open(kLongOpen), third = host.Open(kLongOpen);
  EXPECT_TRUE(session->EndIfLeaseIsOver(ActiveAt(*session) + std::chrono::minutes(1) + nanosecond));
  EXPECT_THAT(std::string(session->AwaitEnd().status.message()), HasSubstr("--session_lease"));
  EXPECT_TRUE(second->EndIfOver(ActiveAt(*second) + std::chrono::minutes(10) + nanosecond));
  EXPECT_THAT(std::string(second->AwaitEnd().status.message()), HasSubstr("--session_idle"));
  host.kernel.Hold();
  third->Take(LongStep(1));
  ASSERT_TRUE(host.kernel.AwaitHeld());
  EXPECT_TRUE(third->EndIfOver(BegunAt(*third) + std::chrono::hours(24) + nanosecond)) << "its life ends in any state";
  host.kernel.Release();
  EXPECT_THAT(std::string(third->AwaitEnd().status.message()), HasSubstr("--session_life"));
  for (const auto& over : {session, second, third}) {
    EXPECT_FALSE(over->IdleFor(In(absl::Hours(1))).has_value());
    EXPECT_FALSE(over->EndIfOver(In(absl::Hours(100))));
    EXPECT_FALSE(over->EndIfLeaseIsOver(In(absl::Hours(100))));
    EXPECT_FALSE(over->Evict());
  }
}

TEST(SessionDriverTest, WhatCountsAsActivity) {
  TestHost host;
  const v1::SessionOpen open = PlainOpen();
  const std::shared_ptr<TestSession> session = host.Begin();
  EXPECT_FALSE(session->IdleFor(In(absl::Hours(1))).has_value()) << "it is not opened";
  EXPECT_FALSE(session->EndIfLeaseIsOver(In(absl::Hours(1)))) << "it is not opened";
  Clock::time_point before;
  const auto expect_active = [&](const char* what) { EXPECT_GE(ActiveAt(*session), before) << what; };
  session->Take(OpeningOf(open));
  EXPECT_FALSE(session->IdleFor(In(absl::Hours(1))).has_value()) << "its opening is being answered";
  const std::int64_t reserved = session->Answer().opened().reserved_bytes();
  before = Clock::now();
  session->Written();
  expect_active("an answer was written");
  v1::SessionRequest quiet = PlainStep(open, 1, 1, 0);
  quiet.mutable_step()->set_quiet(true);
  before = Clock::now();
  session->Take(quiet);
  expect_active("a quiet step");
  const Clock::time_point after = Clock::now();
  session->Take(CancellationOf(9));
  EXPECT_LE(ActiveAt(*session), after) << "a cancellation of nothing is none";
  EXPECT_EQ(session->IdleFor(Clock::now())->reserved_bytes, reserved);
}

TEST(SessionDriverTest, SaysWhatIsOpenAndWhatItMay) {
  TestHost host(
      {.lease = absl::Seconds(61), .idle = absl::Seconds(62), .life = absl::Seconds(63), .grace = absl::Seconds(64)});
  v1::SessionOpen open = PlainOpen(4, 2);
  open.mutable_grace()->set_seconds(7);
  const std::shared_ptr<TestSession> session = host.Open(open);
  EXPECT_EQ(host.opened.lease_time().seconds(), 61);
  EXPECT_EQ(host.opened.idle_time().seconds(), 62);
  EXPECT_EQ(host.opened.life_time().seconds(), 63);
  EXPECT_EQ(host.opened.grace_time().seconds(), 7);
  EXPECT_EQ(host.opened.resume_token().size(), 16U);
  EXPECT_EQ(host.opened.max_message_bytes(), 12345);
  EXPECT_EQ(host.opened.last_step(), 0U);
  EXPECT_EQ(host.opened.page_tokens(), 64);
  session->Take(PlainStep(open, 1, 5, 0, 1));
  const v1::SessionStepResult result = session->TakeAnswer().result();
  EXPECT_THAT(result.lengths(), testing::ElementsAre(5, 5)) << "of the step's layer";
  session->Take(PlainStep(open, 3, 5, 0, 1));
  EXPECT_EQ(session->TakeAnswer().result().code(), static_cast<int>(StatusCode::kFailedPrecondition));
  const v1::ListSessionsResponse list = host.table->List();
  ASSERT_EQ(list.sessions_size(), 1);
  const v1::SessionInfo& info = list.sessions(0);
  EXPECT_EQ(info.id(), 1U);
  EXPECT_EQ(info.peer(), "test");
  EXPECT_EQ(info.rows(), 4);
  EXPECT_EQ(info.sources(), 2);
  EXPECT_EQ(info.layers(), 2);
  EXPECT_EQ(info.steps(), 1U);
  EXPECT_EQ(info.reserved_bytes(), host.opened.reserved_bytes());
  EXPECT_EQ(info.used_bytes(), result.used_bytes());
  EXPECT_GT(info.used_bytes(), 0);
  host.Open(PlainOpen());
  EXPECT_TRUE(host.opened.resume_token().empty());
  EXPECT_FALSE(host.opened.has_grace_time());
}

TEST(SessionDriverTest, AGraceTimeIsCutToTheServers) {
  for (const int seconds : {0, 1, 29, 30, 31, 1000}) {
    TestHost host({.grace = absl::Seconds(30)});
    v1::SessionOpen open = PlainOpen();
    open.mutable_grace()->set_seconds(seconds);
    host.Open(open);
    EXPECT_EQ(host.opened.grace_time().seconds(), std::min(seconds, 30));
    EXPECT_EQ(host.opened.resume_token().empty(), seconds == 0);
  }
  TestHost host;
  v1::SessionOpen open = PlainOpen();
  open.mutable_grace()->set_seconds(-1);
  const std::shared_ptr<TestSession> session = host.Begin();
  session->Take(OpeningOf(open));
  EXPECT_EQ(session->AwaitEnd().status.code(), StatusCode::kInvalidArgument);
}

TEST(SessionDriverTest, AnOpeningThatFindsNoMemoryTakesNone) {
  const std::int64_t bytes = ReservedBytes(PlainOpen());
  TestHost host({.lease = absl::InfiniteDuration(), .grace = absl::Minutes(1)}, 2 * bytes - 1);
  v1::SessionOpen open = PlainOpen();
  open.mutable_grace()->set_seconds(60);
  const std::shared_ptr<TestSession> first = host.Open(open);
  const std::shared_ptr<TestSession> second = host.Begin();
  second->Take(OpeningOf(open));
  const TestSession::End end = second->AwaitEnd();
  EXPECT_EQ(end.status.code(), StatusCode::kResourceExhausted);
  EXPECT_TRUE(RetryDelayOf(end.status).has_value());
  EXPECT_EQ(host.session_account->held_bytes(), bytes);
  EXPECT_EQ(host.table->use().open, 1) << "nothing of it is kept";
  first->Close();
  EXPECT_EQ(first->AwaitEnd().inflight_bytes, 0);
  host.Open(open);
}

// With a lease, one that is idle makes room.
TEST(SessionDriverTest, AnOpeningEvictsWhoseLeaseIsOver) {
  TestHost host({.lease = absl::ZeroDuration()}, ReservedBytes(PlainOpen()));
  const std::shared_ptr<TestSession> first = host.Open(PlainOpen());
  const std::shared_ptr<TestSession> second = host.Begin();
  second->Take(OpeningOf(PlainOpen()));
  EXPECT_EQ(first->AwaitEnd().status.code(), StatusCode::kAborted);
  EXPECT_EQ(second->TakeAnswer().opened().reserved_bytes(), ReservedBytes(PlainOpen()));
  EXPECT_EQ(host.table->use().evicted, 1);
}

TEST(SessionDriverTest, AStoppingServerTellsTheOpenOnesAndEndsTheOthers) {
  TestHost host;
  const std::shared_ptr<TestSession> open = host.Open(PlainOpen()), unopened = host.Begin();
  host.table->GoAway(absl::Seconds(3));
  EXPECT_EQ(unopened->AwaitEnd().status.code(), StatusCode::kUnavailable);
  EXPECT_EQ(open->TakeAnswer().going_away().time_left().seconds(), 3);
  open->Take(PlainStep(PlainOpen(), 1, 1, 0));
  EXPECT_EQ(open->TakeAnswer().result().code(), 0) << "it goes on";
  auto late = std::make_shared<TestSession>(host.host, host.Caller(), host.gate, TestSession::Options());
  EXPECT_EQ(late->Start(late).code(), StatusCode::kUnavailable);
  late.reset();
  EXPECT_EQ(host.gate.inside(), 1) << "one that did not begin is not in the gate";
}

TEST(SessionDriverTest, AResumedSessionIsTheSameOne) {
  TestHost host({.life = absl::Hours(2), .grace = absl::Minutes(1)});
  v1::SessionOpen open = PlainOpen(2);
  open.mutable_grace()->set_seconds(33);
  const std::shared_ptr<TestSession> other = host.Open(PlainOpen());
  const std::shared_ptr<TestSession> lost = host.Open(open);
  const v1::SessionOpened before = host.opened;
  lost->Take(PlainStep(open, 1, 3, 0));
  lost->TakeAnswer();
  const Clock::time_point begun = BegunAt(*lost);
  const v1::SessionInfo was = host.table->List().sessions(1);
  lost->Lose(absl::CancelledError("gone"));
  const v1::SessionInfo parked = host.table->List().sessions(1);
  const std::shared_ptr<TestSession> resumed = host.Resume(before.resume_token());
  v1::SessionOpened expected = before;
  expected.set_last_step(1);
  EXPECT_EQ(host.opened.SerializeAsString(), expected.SerializeAsString()) << host.opened.DebugString();
  EXPECT_LE(std::chrono::abs(BegunAt(*resumed) - begun), std::chrono::microseconds(1)) << "its life goes on";
  v1::ListSessionsResponse list = host.table->List();
  ASSERT_EQ(list.sessions_size(), 2);
  for (v1::SessionInfo info : {was, parked, list.sessions(1)}) {
    EXPECT_EQ(info.id(), 2U);
    EXPECT_EQ(info.steps(), 1U);
    EXPECT_EQ(info.rows(), 2);
    EXPECT_EQ(info.peer(), "test");
    EXPECT_GT(info.used_bytes(), 0);
    EXPECT_EQ(info.reserved_bytes(), before.reserved_bytes());
  }
  // The last step again, and the next one.
  resumed->Take(PlainStep(open, 1, 3, 1));
  EXPECT_EQ(resumed->TakeAnswer().result().lengths(1), 3);
  resumed->Take(PlainStep(open, 2, 1, 1));
  EXPECT_EQ(resumed->TakeAnswer().result().lengths(1), 4);
}

// A connection may have less room for answers than the one before it.
TEST(SessionDriverTest, AResumedSessionHasTheRoomOfItsNewConnection) {
  TestHost host;
  v1::SessionOpen open = PlainOpen();
  open.mutable_grace()->set_seconds(20);
  const std::int64_t output = 2 * 8 * 4;
  host.Open(open)->Lose(absl::CancelledError("gone"));
  const std::string token = host.opened.resume_token();
  for (const std::int64_t room : {output - 1, output}) {
    TestSession::Options options;
    options.max_sent_bytes = room;
    const std::shared_ptr<TestSession> resumed = host.Resume(token, options);
    resumed->Take(PlainStep(open, 1, 1, 1));
    EXPECT_EQ(resumed->TakeAnswer().result().code(),
              room < output ? static_cast<int>(StatusCode::kResourceExhausted) : 0);
    resumed->Lose(absl::CancelledError("gone"));
  }
  // One without any room leaves it as it is.
  TestSession::Options none;
  none.max_sent_bytes = 0;
  const std::shared_ptr<TestSession> refused = host.Resume(token, none);
  EXPECT_EQ(refused->AwaitEnd().status.code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(host.table->use().open, 1);
  const std::shared_ptr<TestSession> resumed = host.Resume(token);
  EXPECT_EQ(host.opened.last_step(), 1U);
}

TEST(SessionDriverTest, ASessionIsTakenFromAConnectionThatHasIt) {
  for (const bool writes : {false, true}) {
    TestHost host;
    v1::SessionOpen open = PlainOpen();
    open.mutable_grace()->set_seconds(20);
    const std::shared_ptr<TestSession> first = host.Open(open);
    const std::string token = host.opened.resume_token();
    if (writes) first->Take(PlainStep(open, 1, 1, 0));
    const std::shared_ptr<TestSession> early = host.Resume(token);
    const absl::Status busy = early->AwaitEnd().status;
    EXPECT_EQ(busy.code(), StatusCode::kUnavailable);
    EXPECT_TRUE(RetryDelayOf(busy).has_value());
    EXPECT_EQ(first->abandons(), writes ? 1 : 0);
    if (writes) first->Written(false);
    EXPECT_EQ(first->AwaitEnd().status.code(), StatusCode::kAborted);
    host.Resume(token);
    EXPECT_EQ(host.opened.last_step(), writes ? 1U : 0U);
  }
}

// What takes long to copy is not copied on the thread that takes messages.
TEST(SessionDriverTest, ALongCopyIsMadeOnTheSchedulersThread) {
  TestHost host;
  const v1::SessionOpen open = PlainOpen(1, 0, 20'000);
  constexpr std::int64_t kTokenBytes = 2 * 2 * 8 * 4;
  constexpr std::int64_t kMost = (std::int64_t{1} << 20) / kTokenBytes;
  const std::shared_ptr<TestSession> computing = host.Open(kLongOpen), session = host.Open(open);
  host.kernel.Hold();
  computing->Take(LongStep(1));
  ASSERT_TRUE(host.kernel.AwaitHeld());
  session->Take(PlainStep(open, 1, kMost, 0));
  ASSERT_TRUE(session->writing()) << "it waits for the scheduler";
  session->Written();
  session->Take(PlainStep(open, 2, kMost + 1, 0));
  EXPECT_FALSE(session->writing()) << "the thread that takes messages copied it";
  session->Take(PlainStep(open, 3, 1, 0));
  session->Take(CancellationOf(2));
  host.kernel.Release();
  EXPECT_EQ(session->TakeAnswer().result().code(), static_cast<int>(StatusCode::kCancelled));
  EXPECT_EQ(session->TakeAnswer().result().code(), static_cast<int>(StatusCode::kFailedPrecondition));
}

}  // namespace
}  // namespace attnd::server
