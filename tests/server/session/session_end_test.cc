// Every way in which a session ends, from every state: what it held is given back before its end is seen, its work
// stops, and only a lost one is kept.
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "session/test_session.h"
#include "wait.h"

namespace attnd::server {
namespace {

using absl::StatusCode;

constexpr absl::Duration kLease = absl::Minutes(1), kIdle = absl::Minutes(10), kLife = absl::Hours(24);

// Its step of 1024 tokens takes hundreds of steps of the kernel.
v1::SessionOpen LongOpen(bool grace) {
  v1::SessionOpen open = PlainOpen(2, 0, 2000);
  if (grace) open.mutable_grace()->set_seconds(60);
  return open;
}
constexpr std::int64_t kLongTokens = 1024;
// Steps of the kernel that may still begin when a work is given up.
constexpr std::int64_t kFewSteps = 4;

// How far a session has come.
enum class State : std::uint8_t {
  kNew,        // nothing was taken
  kIdle,       // open, everything is answered
  kComputing,  // a step is computed, and the kernel held
  kWaiting,    // the same, and two steps wait
  kWriting,    // an answer is being written
  kQueued,     // an answer is being written, another waits behind it, and a step behind that
};

struct Way {
  const char* name;
  StatusCode code;
  bool keeps;        // a session with a grace time
  bool is_graceful;  // its steps are answered before
  bool abandons;     // the connection, if it is being written to
  bool (*applies)(State state);
  void (*end)(TestHost& host, TestSession& session);
};

bool Always(State) { return true; }
bool Opened(State state) { return state != State::kNew; }
bool Writing(State state) { return state == State::kWriting || state == State::kQueued; }
bool IsIdle(State state) { return state == State::kIdle; }
bool NotBusy(State state) { return state == State::kIdle || state == State::kNew; }
// It asks for a message.
bool Asking(State state) { return state != State::kWaiting; }
bool OpenedAndAsking(State state) { return Opened(state) && Asking(state); }

OpenSession::Clock::time_point In(absl::Duration time) {
  return OpenSession::Clock::now() + absl::ToChronoNanoseconds(time);
}

const std::vector<Way>& Ways() {
  static const auto* const ways = new std::vector<Way>{
      {"half-close", StatusCode::kOk, true, true, false, Always, [](TestHost&, TestSession& s) { s.NoMore(); }},
      {"close", StatusCode::kOk, false, true, false, Always, [](TestHost&, TestSession& s) { s.Close(); }},
      {"close, then half-close", StatusCode::kOk, false, true, false, Always,
       [](TestHost&, TestSession& s) { s.Close(), s.NoMore(); }},
      {"close message", StatusCode::kOk, false, true, false, OpenedAndAsking,
       [](TestHost&, TestSession& s) {
         v1::SessionRequest close;
         close.mutable_close();
         s.Take(close);
       }},
      {"close, then loss", StatusCode::kCancelled, false, false, false,
       [](State state) { return state == State::kComputing || state == State::kWaiting || Writing(state); },
       [](TestHost&, TestSession& s) { s.Close(), s.Lose(absl::CancelledError("gone")); }},
      {"half-close, then loss", StatusCode::kCancelled, true, false, false,
       [](State state) { return state == State::kComputing || state == State::kWaiting || Writing(state); },
       [](TestHost&, TestSession& s) { s.NoMore(), s.Lose(absl::CancelledError("gone")); }},
      {"half-close, then eviction", StatusCode::kAborted, false, false, false,
       [](State state) { return state == State::kComputing || state == State::kWaiting || Writing(state); },
       [](TestHost&, TestSession& s) {
         s.NoMore();
         EXPECT_TRUE(s.Evict());
       }},
      {"loss", StatusCode::kCancelled, true, false, false, Always,
       [](TestHost&, TestSession& s) { s.Lose(absl::CancelledError("gone")); }},
      {"loss, then failure", StatusCode::kCancelled, true, false, false,
       [](State state) { return state == State::kComputing || state == State::kWaiting || Writing(state); },
       [](TestHost&, TestSession& s) { s.Lose(absl::CancelledError("gone")), s.Fail(absl::InternalError("late")); }},
      {"broken write", StatusCode::kCancelled, true, false, false, Writing,
       [](TestHost&, TestSession& s) { s.Written(false); }},
      {"failure", StatusCode::kInternal, false, false, false, Always,
       [](TestHost&, TestSession& s) { s.Fail(absl::InternalError("broken")); }},
      {"failure, then loss", StatusCode::kInternal, false, false, false,
       [](State state) { return state == State::kComputing || state == State::kWaiting || Writing(state); },
       [](TestHost&, TestSession& s) { s.Fail(absl::InternalError("broken")), s.Lose(absl::CancelledError("gone")); }},
      {"eviction", StatusCode::kAborted, false, false, false, Always,
       [](TestHost& h, TestSession&) {
         const v1::ListSessionsResponse list = h.table->List();
         ASSERT_EQ(list.sessions_size(), 1);
         EXPECT_TRUE(h.table->Evict(list.sessions(0).id()).ok());
       }},
      {"idle for too long", StatusCode::kAborted, false, false, false, NotBusy,
       [](TestHost&, TestSession& s) { EXPECT_TRUE(s.EndIfOver(In(kIdle + absl::Seconds(1)))); }},
      {"open for too long", StatusCode::kAborted, false, false, false, Always,
       [](TestHost&, TestSession& s) { EXPECT_TRUE(s.EndIfOver(In(kLife + absl::Seconds(1)))); }},
      {"lease over", StatusCode::kAborted, false, false, false, IsIdle,
       [](TestHost&, TestSession& s) { EXPECT_TRUE(s.EndIfLeaseIsOver(In(kLease + absl::Seconds(1)))); }},
      {"stop", StatusCode::kUnavailable, false, false, false, Always,
       [](TestHost& h, TestSession&) { h.table->EndAll(); }},
      {"another connection", StatusCode::kAborted, true, false, true, Opened,
       [](TestHost&, TestSession& s) { EXPECT_FALSE(s.Yield().has_value()); }},
      {"no message", StatusCode::kInvalidArgument, false, false, false, Asking,
       [](TestHost&, TestSession& s) { s.TakeBytes("\xff\xff\xff"); }},
      {"message of no kind", StatusCode::kInvalidArgument, false, false, false, Asking,
       [](TestHost&, TestSession& s) { s.Take(v1::SessionRequest()); }},
      {"second opening", StatusCode::kInvalidArgument, false, false, false, OpenedAndAsking,
       [](TestHost&, TestSession& s) { s.Take(OpeningOf(PlainOpen())); }},
      {"resumption of an open one", StatusCode::kInvalidArgument, false, false, false, OpenedAndAsking,
       [](TestHost&, TestSession& s) { s.Take(ResumptionOf("x")); }},
  };
  return *ways;
}

struct Case {
  const Way& way;
  State state;
  bool grace;
};

// Brings a session into a state; returns how many of its steps have succeeded.
std::uint64_t Bring(TestHost& host, const std::shared_ptr<TestSession>& session, const Case& c) {
  if (c.state == State::kNew) return 0;
  const v1::SessionOpen open = LongOpen(c.grace);
  session->Take(OpeningOf(open));
  host.opened = session->TakeAnswer().opened();
  session->Take(PlainStep(open, 1, 1, 0));
  EXPECT_EQ(session->TakeAnswer().result().code(), 0);
  if (c.state == State::kIdle) return 1;
  if (Writing(c.state)) {
    session->Take(PlainStep(open, 2, 1, 0));
    EXPECT_EQ(session->Answer().result().step(), 2U);
    if (c.state == State::kWriting) return 2;
    session->Take(PlainStep(open, 3, 1, 0));
    session->Take(PlainStep(open, 4, kLongTokens, kLongTokens));
    return 3;
  }
  host.kernel.Hold();
  session->Take(PlainStep(open, 2, kLongTokens, kLongTokens));
  EXPECT_TRUE(host.kernel.AwaitHeld());
  if (c.state == State::kWaiting) {
    for (const std::uint64_t number : {3U, 4U}) session->Take(PlainStep(open, number, kLongTokens - 100, 1));
  }
  return 1;
}

// Lets the session go on until it ends.
void LetItEnd(TestSession& session) {
  EXPECT_TRUE(test::Becomes([&] {
    if (session.writing()) session.Written();
    return session.ended();
  }));
}

void ExpectGivesAllBack(const Case& c) {
  TestHost host({.lease = kLease, .idle = kIdle, .life = kLife, .grace = absl::Minutes(1)});
  const std::shared_ptr<TestSession> session = host.Begin();
  std::uint64_t succeeded = Bring(host, session, c);
  if (testing::Test::HasFailure()) return;
  const bool kept = c.way.keeps && c.grace && c.state != State::kNew;
  const std::int64_t reserved = c.state == State::kNew ? 0 : host.opened.reserved_bytes();
  const int answers = session->answers();
  const std::int64_t steps = host.kernel.steps();
  const bool writes = session->writing();
  c.way.end(host, *session);
  EXPECT_EQ(session->abandons(), c.way.abandons && writes ? 1 : 0);
  if (session->writing()) {
    EXPECT_FALSE(session->ended()) << "its transport still writes";
    if (!c.way.is_graceful) session->Written();
  }
  host.kernel.Release();
  if (c.way.is_graceful) LetItEnd(*session);
  const TestSession::End end = session->AwaitEnd();
  const bool unopened = c.state == State::kNew && c.way.is_graceful;
  EXPECT_EQ(end.status.code(), unopened ? StatusCode::kInvalidArgument : c.way.code) << end.status;
  if (!c.way.is_graceful) {
    EXPECT_EQ(session->answers(), answers) << "answers after its failure";
    EXPECT_LE(host.kernel.steps() - steps, kFewSteps) << "its work goes on";
  } else if (c.state == State::kComputing || c.state == State::kQueued) {
    ++succeeded;
  } else if (c.state == State::kWaiting) {
    succeeded += 2;  // the last one finds no room
  }
  EXPECT_EQ(end.inflight_bytes, kept ? reserved : 0);
  EXPECT_EQ(end.received_bytes, 0);
  EXPECT_EQ(end.open, kept ? 1 : 0);
  EXPECT_EQ(end.inside, 1);
  EXPECT_EQ(host.gate.inside(), 0);
  EXPECT_EQ(host.account->held_bytes(), 0);
  EXPECT_EQ(host.session_account->held_bytes(), kept ? reserved : 0);
  EXPECT_TRUE(test::Becomes([&] { return session.use_count() == 2; }))
      << "it keeps itself: beside the test and its host";
  if (!c.grace || c.state == State::kNew) return;
  const std::string token = host.opened.resume_token();
  const std::shared_ptr<TestSession> resumed = host.Resume(token);
  if (!kept) {
    EXPECT_EQ(resumed->AwaitEnd().status.code(), StatusCode::kNotFound);
    return;
  }
  EXPECT_EQ(host.opened.resume_token(), token);
  EXPECT_EQ(host.opened.last_step(), succeeded);
  resumed->Close();
  EXPECT_EQ(resumed->AwaitEnd().inflight_bytes, 0);
  EXPECT_EQ(host.table->use().open, 0);
}

constexpr const char* kStates[] = {"New", "Idle", "Computing", "Waiting", "Writing", "Queued"};

class SessionEndTest : public testing::TestWithParam<State> {};
INSTANTIATE_TEST_SUITE_P(, SessionEndTest,
                         testing::Values(State::kNew, State::kIdle, State::kComputing, State::kWaiting, State::kWriting,
                                         State::kQueued),
                         [](const auto& info) { return kStates[static_cast<std::size_t>(info.param)]; });

TEST_P(SessionEndTest, GivesBackAllThatItHeld) {
  for (const Way& way : Ways()) {
    for (const bool grace : {false, true}) {
      if (!way.applies(GetParam())) continue;
      SCOPED_TRACE(absl::StrCat(way.name, grace ? ", with a grace time" : ""));
      ExpectGivesAllBack({way, GetParam(), grace});
      if (HasFailure()) return;
    }
  }
}

// Its memory is freed on a thread of the scheduler, since that takes long; the end is seen after it all the same.
TEST(SessionEndLargeTest, ALargeOneIsFreedAsideAndBeforeItsEndIsSeen) {
  constexpr std::int64_t kTokens = 40'000;  // of 128 bytes for k and v each, and head
  TestHost host;
  const v1::SessionOpen open = PlainOpen(2, 0, 2 * kTokens);
  const std::shared_ptr<TestSession> large = host.Open(open), computing = host.Open(LongOpen(false));
  const std::int64_t other = host.opened.reserved_bytes();
  large->Take(PlainStep(open, 1, 2 * kTokens, 0));
  EXPECT_GT(large->TakeAnswer().result().used_bytes(), std::int64_t{16} << 20);
  host.kernel.Hold();
  computing->Take(PlainStep(LongOpen(false), 1, kLongTokens, kLongTokens));
  ASSERT_TRUE(host.kernel.AwaitHeld());
  const std::int64_t held = host.engine.inflight_bytes();
  large->Close();
  EXPECT_FALSE(large->ended()) << "it is freed on the caller's thread";
  EXPECT_EQ(host.engine.inflight_bytes(), held);
  host.kernel.Release();
  const TestSession::End end = large->AwaitEnd();
  EXPECT_TRUE(end.status.ok()) << end.status;
  EXPECT_EQ(host.session_account->held_bytes(), other);
  EXPECT_EQ(end.open, 1);
}

// Thread A is in a call to the transport while thread B ends the session: it lasts until A has come back.
TEST(SessionEndRaceTest, LastsUntilTheLastThreadHasLeftIt) {
  enum class Where : std::uint8_t { kAsk, kSend, kTake };
  for (const Where where : {Where::kAsk, Where::kSend, Where::kTake}) {
    SCOPED_TRACE(static_cast<int>(where));
    absl::Notification inside, go_on;
    bool waits = true;
    const auto hold = [&] {
      if (!std::exchange(waits, false)) return;
      inside.Notify();
      EXPECT_TRUE(go_on.WaitForNotificationWithTimeout(kSessionPatience));
    };
    TestSession::Options options;
    if (where == Where::kAsk) options.on_ask = hold;
    if (where == Where::kSend) options.on_send = hold;
    if (where == Where::kTake) options.on_max_sent_bytes = hold;
    TestHost host;
    std::shared_ptr<TestSession> session;
    absl::Notification begun;
    if (where != Where::kAsk) session = host.Begin(options);
    std::thread other([&] {
      if (where == Where::kAsk) {
        session = host.Begin(options);
      } else {
        session->Take(OpeningOf(PlainOpen()));
      }
    });
    EXPECT_TRUE(inside.WaitForNotificationWithTimeout(kSessionPatience));
    if (where == Where::kAsk) {
      EXPECT_TRUE(host.table->Evict(1).ok());
      EXPECT_EQ(host.table->use().open, 1) << "it ended under a thread that uses it";
    } else {
      session->Fail(absl::InternalError("broken"));
      EXPECT_FALSE(session->ended()) << "it ended under a thread that uses it";
      if (session->writing()) session->Written();
      EXPECT_FALSE(session->ended()) << "it ended under a thread that uses it";
    }
    go_on.Notify();
    other.join();
    if (session->writing()) session->Written();
    const TestSession::End end = session->AwaitEnd();
    EXPECT_EQ(end.inflight_bytes, 0);
    EXPECT_EQ(end.open, 0);
  }
}

}  // namespace
}  // namespace attnd::server
