// Sessions over local sockets, at their sink: pauses, what is held for an answer, and ends.
#include "server/session/local_session.h"

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "attnd/v1/local.pb.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "session/test_session.h"
#include "wait.h"

namespace attnd::server {
namespace {

using absl::StatusCode;
using test::Becomes;
using testing::HasSubstr;

constexpr Peer kPeer{.uid = 42, .pid = 1};
constexpr std::int64_t kLongTokens = 1024;
// A long step's output fits a datagram.
const v1::SessionOpen kLongOpen = [] {
  v1::SessionOpen open = PlainOpen(2, 0, 4000);
  open.mutable_layers(0)->set_value_head_dim(1);
  return open;
}();

// Keeps each reply, with what is held for it, until it is taken. Pause and Resume must alternate.
class PausingSink final : public DatagramSink {
 public:
  void Send(std::string datagram, std::shared_ptr<const void> held) override {
    EXPECT_LE(datagram.size(), kMaxDatagramBytes);
    v1::LocalReply reply;
    EXPECT_TRUE(reply.ParseFromString(datagram));
    absl::MutexLock lock(&mutex_);
    sent_.emplace_back(std::move(reply), std::move(held));
  }
  void Pause() override {
    absl::MutexLock lock(&mutex_);
    EXPECT_FALSE(std::exchange(paused_, true)) << "paused twice";
  }
  void Resume() override {
    absl::MutexLock lock(&mutex_);
    EXPECT_TRUE(std::exchange(paused_, false)) << "resumed without a pause";
  }

  bool paused() const {
    absl::MutexLock lock(&mutex_);
    return paused_;
  }
  std::size_t size() const {
    absl::MutexLock lock(&mutex_);
    return sent_.size();
  }
  std::pair<v1::LocalReply, std::shared_ptr<const void>> Take() {
    absl::MutexLock lock(&mutex_);
    const auto any = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !sent_.empty(); };
    if (!mutex_.AwaitWithTimeout(absl::Condition(&any), kSessionPatience)) {
      ADD_FAILURE() << "no reply";
      return {};
    }
    auto first = std::move(sent_.front());
    sent_.pop_front();
    return first;
  }
  v1::SessionReply TakeSession() { return Take().first.session(); }
  v1::LocalSessionEnd TakeEnd() {
    const v1::LocalReply reply = Take().first;
    EXPECT_TRUE(reply.has_session_end()) << reply.DebugString();
    return reply.session_end();
  }

 private:
  mutable absl::Mutex mutex_;
  bool paused_ ABSL_GUARDED_BY(mutex_) = false;
  std::deque<std::pair<v1::LocalReply, std::shared_ptr<const void>>> sent_ ABSL_GUARDED_BY(mutex_);
};

// A connection's session. Drops it in the end, as the connection does.
class LocalSessionTest : public testing::Test {
 protected:
  explicit LocalSessionTest(const SessionOptions& options = {.grace = absl::Minutes(1)}) : host_(options) {}
  ~LocalSessionTest() override {
    host_.kernel.Release();
    if (session_ != nullptr) session_->Drop();
    EXPECT_TRUE(Becomes([&] { return host_.gate.inside() == 0; }));
  }

  void Begin() { session_ = service_.Begin(kPeer, sink_); }
  v1::SessionOpened Open(const v1::SessionOpen& open) {
    Begin();
    Take(OpeningOf(open));
    return sink_->TakeSession().opened();
  }
  // The listener delivers nothing in a pause.
  void Take(const v1::SessionRequest& request) {
    EXPECT_TRUE(Becomes([&] { return !sink_->paused(); })) << "it is never resumed";
    session_->Take(request.SerializeAsString());
  }
  std::int64_t Held() const { return host_.ledger.AccountOf("uid:42")->held_bytes(); }
  std::int64_t Reserved() const { return host_.ledger.AccountOf("sessions of uid:42")->held_bytes(); }

  mutable TestHost host_;
  LocalSessionService service_{host_.host, host_.gate};
  const std::shared_ptr<PausingSink> sink_ = std::make_shared<PausingSink>();
  std::shared_ptr<LocalSession> session_;
};

TEST_F(LocalSessionTest, PausesItsConnectionWhileItAsksForNothing) {
  Open(kLongOpen);
  EXPECT_FALSE(sink_->paused());
  host_.kernel.Hold();
  Take(PlainStep(kLongOpen, 1, kLongTokens, kLongTokens));
  ASSERT_TRUE(host_.kernel.AwaitHeld());
  EXPECT_FALSE(sink_->paused());
  Take(PlainStep(kLongOpen, 2, 1, 0));
  EXPECT_FALSE(sink_->paused());
  Take(PlainStep(kLongOpen, 3, 1, 0));
  EXPECT_TRUE(sink_->paused()) << "two steps wait";
  host_.kernel.Release();
  for (const std::uint64_t number : {1U, 2U, 3U}) EXPECT_EQ(sink_->TakeSession().result().step(), number);
  ASSERT_TRUE(Becomes([&] { return !sink_->paused(); })) << "it is never resumed";
  Take(PlainStep(kLongOpen, 4, 1, 0));
  EXPECT_EQ(sink_->TakeSession().result().step(), 4U);
}

// Whoever has had his session uses the connection for calls.
TEST_F(LocalSessionTest, LeavesItsConnectionUnpausedWhenItEnds) {
  // By an error in its first message, in a later one, and while it is paused.
  Begin();
  Take(PlainStep(kLongOpen, 1, 1, 0));
  EXPECT_EQ(sink_->TakeEnd().code(), static_cast<int>(StatusCode::kInvalidArgument));
  ASSERT_FALSE(sink_->paused());
  session_->Take(PlainStep(kLongOpen, 2, 1, 0).SerializeAsString());
  ASSERT_FALSE(sink_->paused()) << "what comes after its end is ignored";
  session_->Drop();
  Open(kLongOpen);
  Take(OpeningOf(kLongOpen));
  EXPECT_EQ(sink_->TakeEnd().code(), static_cast<int>(StatusCode::kInvalidArgument));
  ASSERT_FALSE(sink_->paused());
  session_->Drop();
  Open(kLongOpen);
  host_.kernel.Hold();
  Take(PlainStep(kLongOpen, 1, kLongTokens, kLongTokens));
  for (const std::uint64_t number : {2U, 3U}) Take(PlainStep(kLongOpen, number, 1, 0));
  EXPECT_TRUE(sink_->paused());
  host_.table->EndAll();
  host_.kernel.Release();
  EXPECT_EQ(sink_->TakeEnd().code(), static_cast<int>(StatusCode::kUnavailable));
  EXPECT_TRUE(Becomes([&] { return !sink_->paused(); }));
  EXPECT_EQ(Held(), 0);
  EXPECT_EQ(Reserved(), 0);
}

// An answer in a full socket is charged to its peer until it is sent.
TEST_F(LocalSessionTest, AnAnswerIsChargedUntilItIsSent) {
  const v1::SessionOpened opened = Open(kLongOpen);
  EXPECT_EQ(Reserved(), opened.reserved_bytes());
  EXPECT_EQ(Held(), 0);
  Take(PlainStep(kLongOpen, 1, 2, 2));
  auto [reply, held] = sink_->Take();
  EXPECT_EQ(reply.session().result().code(), 0) << reply.session().result().message();
  const auto output = static_cast<std::int64_t>(reply.session().output().size());
  EXPECT_EQ(output, 2 * 2 * 2 * 4);
  EXPECT_EQ(Held(), output);
  held.reset();
  EXPECT_EQ(Held(), 0);
}

TEST_F(LocalSessionTest, OneThatIsClosedEndsWhenItsStepsAreAnswered) {
  Open(kLongOpen);
  host_.kernel.Hold();
  Take(PlainStep(kLongOpen, 1, kLongTokens, kLongTokens));
  ASSERT_TRUE(host_.kernel.AwaitHeld());
  session_->Close();
  EXPECT_EQ(sink_->size(), 0U);
  host_.kernel.Release();
  EXPECT_EQ(sink_->TakeSession().result().step(), 1U);
  EXPECT_EQ(sink_->TakeEnd().code(), 0);
  EXPECT_TRUE(Becomes([&] { return host_.gate.inside() == 0; }));
  EXPECT_EQ(Reserved(), 0);
}

TEST_F(LocalSessionTest, OneWhoseConnectionEndsIsKeptOrFreed) {
  for (const bool grace : {false, true}) {
    for (const bool closed : {false, true}) {
      v1::SessionOpen open = kLongOpen;
      if (grace) open.mutable_grace()->set_seconds(20);
      const v1::SessionOpened opened = Open(open);
      host_.kernel.Hold();
      Take(PlainStep(open, 1, kLongTokens, kLongTokens));
      ASSERT_TRUE(host_.kernel.AwaitHeld());
      if (closed) session_->Close();
      session_->Drop();
      host_.kernel.Release();
      EXPECT_EQ(sink_->TakeEnd().code(), static_cast<int>(StatusCode::kCancelled));
      const bool kept = grace && !closed;
      EXPECT_TRUE(Becomes([&] { return host_.gate.inside() == 0; }));
      EXPECT_EQ(Held(), 0);
      EXPECT_EQ(Reserved(), kept ? opened.reserved_bytes() : 0);
      EXPECT_EQ(host_.table->use().open, kept ? 1 : 0);
      if (!kept) continue;
      Begin();
      Take(ResumptionOf(opened.resume_token()));
      EXPECT_EQ(sink_->TakeSession().opened().resume_token(), opened.resume_token());
      session_->Close();
      EXPECT_EQ(sink_->TakeEnd().code(), 0);
      EXPECT_EQ(Reserved(), 0);
    }
  }
}

// With its results and the lengths of all rows, or sources, it must fit a datagram.
TEST_F(LocalSessionTest, AnAnswersRoomIsADatagramLessWhatElseItHas) {
  constexpr auto kDatagram = static_cast<std::int64_t>(kMaxDatagramBytes);
  struct Case {
    std::int64_t rows, sources;
  };
  for (const Case& c : {Case{1, 0}, Case{1000, 0}, Case{4000, 0}, Case{6000, 3000}}) {
    v1::SessionOpen open = PlainOpen(c.rows, c.sources, 1);
    open.mutable_layers(0)->set_heads(1);
    open.mutable_layers(0)->set_head_dim(1);
    const std::int64_t room = kDatagram - 1024 - 5 * c.rows;
    for (const std::int64_t beyond : {0, 1}) {
      EXPECT_EQ(Open(open).max_message_bytes(), kDatagram - 16);
      // An output of just that many bytes, in a layout whose queries are few.
      v1::SessionRequest step = PlainStep(open, 1, 0, 0);
      const std::int64_t queries = room / (4 * c.rows) + beyond;
      step.mutable_step()->set_query_length(queries);
      step.set_q(Ones(c.rows * queries));
      Take(step);
      const v1::SessionReply reply = sink_->TakeSession();
      EXPECT_EQ(reply.result().code(), beyond == 0 ? 0 : static_cast<int>(StatusCode::kResourceExhausted))
          << c.rows << " rows, " << queries << " queries: " << reply.result().message();
      session_->Close();
      EXPECT_EQ(sink_->TakeEnd().code(), 0);
    }
  }
  const std::int64_t most_rows = (kDatagram - 1024 - 1) / 5;
  for (const std::int64_t rows : {most_rows, most_rows + 1}) {
    Begin();
    Take(OpeningOf(PlainOpen(rows, 0, 1)));
    const v1::LocalReply reply = sink_->Take().first;
    EXPECT_EQ(reply.has_session_end(), rows > most_rows);
    if (reply.has_session_end()) {
      EXPECT_EQ(reply.session_end().detail().field(), "rows");
    } else {
      session_->Drop();
      EXPECT_EQ(sink_->TakeEnd().code(), static_cast<int>(StatusCode::kCancelled));
    }
  }
}

TEST_F(LocalSessionTest, AStoppingServerBeginsNone) {
  host_.gate.Close();
  Begin();
  EXPECT_EQ(session_, nullptr);
  const v1::LocalSessionEnd end = sink_->TakeEnd();
  EXPECT_EQ(end.code(), static_cast<int>(StatusCode::kUnavailable));
  EXPECT_EQ(host_.gate.inside(), 0);
  EXPECT_EQ(host_.table->use().open, 0);
}

class FullLocalSessionTest : public LocalSessionTest {
 protected:
  FullLocalSessionTest() : LocalSessionTest({.most = 1}) {}
};

TEST_F(FullLocalSessionTest, SaysWhenToComeBackAndIsInNoGate) {
  const std::shared_ptr<TestSession> first = host_.Open(PlainOpen());
  Begin();
  EXPECT_EQ(session_, nullptr);
  const v1::LocalSessionEnd end = sink_->TakeEnd();
  EXPECT_EQ(end.code(), static_cast<int>(StatusCode::kResourceExhausted));
  EXPECT_THAT(end.message(), HasSubstr("--max_sessions"));
  EXPECT_EQ(end.retry_delay().seconds(), 1);
  EXPECT_EQ(host_.gate.inside(), 1);
  first->Close();
  EXPECT_TRUE(first->AwaitEnd().status.ok());
  EXPECT_EQ(Open(PlainOpen()).last_step(), 0U);
}

}  // namespace
}  // namespace attnd::server
