// Sessions whose transport is a test, and all that a server has for them.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "attention/calls.h"
#include "attention/held_kernel.h"
#include "gtest/gtest.h"
#include "server/rpc/call_gate.h"
#include "server/session/session_driver.h"
#include "session/session_calls.h"

namespace attnd::server {

// How long a test waits for what a session does at once.
inline constexpr absl::Duration kSessionPatience = absl::Seconds(15);

// What a session was given, and how it ended. The test reports the events: Take, Sent, NoMore and the others. Thread-
// safe, as far as its driver is.
class TestSession final : public SessionDriver {
 public:
  // What is held at the moment when the end is reported.
  struct End {
    absl::Status status;
    std::int64_t inflight_bytes = 0;
    std::int64_t received_bytes = 0;
    std::int64_t open = 0;    // in the table
    std::int64_t inside = 0;  // the gate, itself included
  };
  struct Options {
    std::int64_t max_sent_bytes = AttentionEngine::kAnyBytes;
    // Called when the driver asks for a message, gives an answer or asks for max_sent_bytes.
    std::function<void()> on_ask, on_send, on_max_sent_bytes;
  };

  TestSession(const SessionHost& host, SessionCaller caller, CallGate& gate, Options options)
      : SessionDriver(host, std::move(caller), Enter(gate)), host_(host), gate_(gate), options_(std::move(options)) {}

  using SessionDriver::Close;
  using SessionDriver::Fail;
  using SessionDriver::Lose;
  using SessionDriver::NoMore;
  using SessionDriver::Start;

  void Take(const v1::SessionRequest& request) {
    grpc::ByteBuffer message = BytesOf(request);
    SessionDriver::Take(message);
  }
  void TakeBytes(const std::string& bytes) {
    const grpc::Slice slice(bytes);
    grpc::ByteBuffer message(&slice, 1);
    SessionDriver::Take(message);
  }

  // The answer being written, once there is one; the transport still holds it.
  v1::SessionReply Answer() {
    absl::MutexLock lock(&mutex_);
    const auto any = [this]()
                         ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return writing_.has_value() || end_.has_value(); };
    if (!mutex_.AwaitWithTimeout(absl::Condition(&any), kSessionPatience) || !writing_.has_value()) {
      ADD_FAILURE() << "no answer" << (end_.has_value() ? ", but " + end_->status.ToString() : "");
      return {};
    }
    return reply_;
  }
  bool writing() const {
    absl::MutexLock lock(&mutex_);
    return writing_.has_value();
  }
  std::int64_t answer_bytes() const {
    absl::MutexLock lock(&mutex_);
    return writing_.has_value() ? writing_->lease.bytes() : 0;
  }
  // The answer is with the caller: lets go of it.
  void Written(bool ok = true) {
    {
      absl::MutexLock lock(&mutex_);
      writing_.reset();
    }
    SessionDriver::Sent(ok);
  }
  v1::SessionReply TakeAnswer() {
    v1::SessionReply reply = Answer();
    if (writing()) Written();
    return reply;
  }

  bool ended() const {
    absl::MutexLock lock(&mutex_);
    return end_.has_value();
  }
  // Waits for the end; that of a session that does not end is UNKNOWN.
  End AwaitEnd() {
    absl::MutexLock lock(&mutex_);
    const auto over = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return end_.has_value(); };
    if (!mutex_.AwaitWithTimeout(absl::Condition(&over), kSessionPatience)) {
      ADD_FAILURE() << "the session does not end";
      return {absl::UnknownError("no end")};
    }
    return *end_;
  }

  int asks() const {
    absl::MutexLock lock(&mutex_);
    return asks_;
  }
  int answers() const {
    absl::MutexLock lock(&mutex_);
    return answers_;
  }
  int abandons() const {
    absl::MutexLock lock(&mutex_);
    return abandons_;
  }

 private:
  static Pass Enter(CallGate& gate) {
    EXPECT_TRUE(gate.Enter());
    return Pass(&gate);
  }

  void Ask() override {
    {
      absl::MutexLock lock(&mutex_);
      ++asks_;
    }
    if (options_.on_ask) options_.on_ask();
  }
  void Send(SessionAnswer answer) override {
    grpc::Slice flat;
    {
      absl::MutexLock lock(&mutex_);
      ++answers_;
      EXPECT_FALSE(writing_.has_value()) << "one at a time";
      EXPECT_FALSE(end_.has_value()) << "after the end";
      EXPECT_TRUE(answer.message.DumpToSingleSlice(&flat).ok());
      EXPECT_TRUE(reply_.ParseFromArray(flat.begin(), static_cast<int>(flat.size())));
      writing_ = std::move(answer);
    }
    if (options_.on_send) options_.on_send();
  }
  void SayEnd(const absl::Status& status, Pass pass) override {
    End end{status, host_.engine.inflight_bytes(), AttentionEngine::received_bytes(), host_.table.use().open,
            gate_.inside()};
    EXPECT_NE(pass, nullptr);
    pass.reset();
    {
      absl::MutexLock lock(&mutex_);
      EXPECT_FALSE(end_.has_value()) << "a second end";
      EXPECT_FALSE(writing_.has_value()) << "an answer is being written";
      end_ = std::move(end);
    }
    Release();
  }
  void Abandon() override {
    absl::MutexLock lock(&mutex_);
    ++abandons_;
  }
  std::int64_t max_message_bytes() const override { return 12345; }
  std::int64_t MaxSentBytes(const SessionShape&) const override {
    if (options_.on_max_sent_bytes) options_.on_max_sent_bytes();
    return options_.max_sent_bytes;
  }

  const SessionHost& host_;
  CallGate& gate_;
  const Options options_;
  mutable absl::Mutex mutex_;
  int asks_ ABSL_GUARDED_BY(mutex_) = 0;
  int answers_ ABSL_GUARDED_BY(mutex_) = 0;
  int abandons_ ABSL_GUARDED_BY(mutex_) = 0;
  std::optional<SessionAnswer> writing_ ABSL_GUARDED_BY(mutex_);
  v1::SessionReply reply_ ABSL_GUARDED_BY(mutex_);
  std::optional<End> end_ ABSL_GUARDED_BY(mutex_);
};

// An engine of one thread, whose kernel can be held, a table, and sessions of one peer.
class TestHost {
 public:
  explicit TestHost(const SessionOptions& options = {}, std::int64_t ledger_bytes = std::int64_t{1} << 30)
      : ledger({.total = ledger_bytes, .shares = false}),
        engine({}, registry, kernel.kernel(), 1, &memory, &ledger),
        table(std::make_unique<SessionTable>(options)),
        host{engine, registry, *table} {}
  ~TestHost() {
    kernel.Release();
    bool ended = true;
    for (const std::shared_ptr<TestSession>& session : sessions_) {
      session->EndForStop();
      if (session->writing()) session->Written();
      ended = ended && session->AwaitEnd().status.code() != absl::StatusCode::kUnknown;
    }
    // A session that is never removed keeps the table's end waiting for ever.
    if (table->use().open > 0) table->EndAll();
    if (!ended || table->use().open > 0) {
      ADD_FAILURE() << "sessions stay in the table after their end";
      static_cast<void>(table.release());  // NOLINT(bugprone-unused-return-value)
    }
  }
  TestHost(const TestHost&) = delete;
  TestHost& operator=(const TestHost&) = delete;

  SessionCaller Caller() { return {"test", account, session_account, schedule::Clock::time_point::max()}; }
  // A session before its first message.
  std::shared_ptr<TestSession> Begin(TestSession::Options options = {}) { return Begin(Caller(), std::move(options)); }
  std::shared_ptr<TestSession> Begin(SessionCaller caller, TestSession::Options options = {}) {
    auto session = std::make_shared<TestSession>(host, std::move(caller), gate, std::move(options));
    const absl::Status started = session->Start(session);
    EXPECT_TRUE(started.ok()) << started;
    sessions_.push_back(session);
    return session;
  }
  // An open session, whose opening is with the caller.
  std::shared_ptr<TestSession> Open(const v1::SessionOpen& open, TestSession::Options options = {}) {
    std::shared_ptr<TestSession> session = Begin(std::move(options));
    session->Take(OpeningOf(open));
    opened = session->TakeAnswer().opened();
    EXPECT_GT(opened.reserved_bytes(), 0);
    return session;
  }
  // What comes of a resumption; `opened` if it succeeds.
  std::shared_ptr<TestSession> Resume(const std::string& token, TestSession::Options options = {}) {
    std::shared_ptr<TestSession> session = Begin(std::move(options));
    session->Take(ResumptionOf(token));
    if (!session->ended()) opened = session->TakeAnswer().opened();
    return session;
  }

  HeldKernel kernel;
  model::Registry registry{model::RegistryOptions{}};
  memory::Ledger ledger;
  const std::shared_ptr<memory::Account> account = ledger.AccountOf("peer");
  const std::shared_ptr<memory::Account> session_account = ledger.AccountOf("sessions of peer");
  SharedMemory memory{SharedMemoryLimits{}};
  AttentionEngine engine;
  CallGate gate;
  std::unique_ptr<SessionTable> table;
  const SessionHost host;
  v1::SessionOpened opened;  // of the session that was opened or resumed last

 private:
  std::vector<std::shared_ptr<TestSession>> sessions_;
};

}  // namespace attnd::server
