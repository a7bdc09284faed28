// A session from its first message to its end, whatever carries its messages.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "attnd/v1/session.pb.h"
#include "grpcpp/support/byte_buffer.h"
#include "memory/ledger.h"
#include "model/registry.h"
#include "server/attention/engine.h"
#include "server/rpc/call_gate.h"
#include "server/session/session.h"
#include "server/session/session_table.h"
#include "server/wire/codec.h"

namespace attnd::server {

// What all sessions of a server use. Borrowed.
struct SessionHost {
  AttentionEngine& engine;
  const model::Registry& registry;
  SessionTable& table;
};

// Who has a session.
struct SessionCaller {
  std::string address;                               // as in SessionInfo.peer
  std::shared_ptr<memory::Account> account;          // of the peer's steps
  std::shared_ptr<memory::Account> session_account;  // of what its sessions keep
  schedule::Clock::time_point deadline = schedule::Clock::time_point::max();
};

// An answer until it is with the transport: a SessionReply. The message goes before its lease.
struct SessionAnswer {
  memory::Ticket lease;
  grpc::ByteBuffer message;
};

// It asks for two messages ahead of the step that is computed, and computes no further while an answer waits behind the
// one that is written: so it holds three messages and three results at most beside what it has reserved, all from the
// ledger, however slowly its answers are read. It is in the host's table until its end, when all it keeps is free.
// Thread-safe.
class SessionDriver : public OpenSession {
 public:
  // In the gate, by `pass`, until it has ended.
  SessionDriver(const SessionHost& host, SessionCaller caller, Pass pass);

  bool EndIfOver(Clock::time_point now) override;
  std::optional<Idle> IdleFor(Clock::time_point now) override;
  bool EndIfLeaseIsOver(Clock::time_point now) override;
  bool Evict() override;
  void Describe(Clock::time_point now, v1::SessionInfo& info) override;
  void SayGoingAway(absl::Duration time_left) override;
  void EndForStop() override;
  std::optional<SessionState> Yield() override;

 protected:
  // What a transport does, on any thread and without waiting for another event. Each is followed by what is told below,
  // which may be before it returns.

  // Asks for the next message: Take, NoMore or Fail.
  virtual void Ask() = 0;
  // Sends an answer: Sent. One at a time.
  virtual void Send(SessionAnswer answer) = 0;
  // Says how the session has ended, and then leaves the gate. The last thing that is done with it, after which it may
  // be gone.
  virtual void SayEnd(const absl::Status& status, Pass pass) = 0;
  // Gives the connection up, so that an answer that is being sent is Sent soon. Nothing need follow.
  virtual void Abandon() {}

  // The largest SessionRequest that gets here.
  virtual std::int64_t max_message_bytes() const = 0;
  // Room for output and log-sum-exp in an answer of a session of this shape.
  virtual std::int64_t MaxSentBytes(const SessionShape& shape) const = 0;

  // What the transport tells. None of it throws, and after each the session may be gone, unless `this` is held.

  // Once, before anything else. It holds itself from then on until Release. Errors: as SessionTable::Add; nothing has
  // begun then.
  absl::Status Start(const std::shared_ptr<SessionDriver>& self);
  // A SessionRequest, which is cleared.
  void Take(grpc::ByteBuffer& message);
  // None comes any more, which of a session that can be resumed is a loss.
  void NoMore();
  // None comes any more, and the session is to end.
  void Close();
  void Sent(bool ok);
  // Ends the session for this reason; one that came first stands.
  void Fail(const absl::Status& status);
  // The same where the connection is lost, after which the session may be resumed by another.
  void Lose(const absl::Status& status);
  // Nothing will be told any more.
  void Release();

 private:
  // A step from its arrival until it is answered.
  struct Step {
    std::uint64_t number = 0;
    memory::Ticket message_lease;  // goes after the message
    Decoded<v1::SessionRequest> request;
    ComputeOptions options;
    absl::Status fault;  // of its arrival

    const v1::SessionStep& step() const { return request.header.step(); }
  };

  struct Next {
    std::optional<schedule::CancelToken> give_up;  // what is computed
    std::shared_ptr<Step> begin;
    bool abandon = false;
    bool ask = false;
    std::optional<SessionAnswer> send;
    bool finish = false;
    absl::Status status;  // to finish with

    bool anything() const {
      return give_up.has_value() || begin != nullptr || abandon || ask || send.has_value() || finish;
    }
  };

  // Whatever happens is told under the lock (Update), and what follows from it (Decide) is done without (Do). It ends
  // when nothing is taken, computed or written any more, so nothing of this outlives it. After this it may be gone.
  template <typename Change>
  void Update(Change change);
  Next Decide() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Do(Next next);
  void End(const absl::Status& status);
  void EndNow(const absl::Status& status);
  // Hands what the session keeps to the table, if it is to be kept without a connection.
  void ParkIfLost();
  void LoseLocked(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  bool Busy() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return running_ != nullptr || !waiting_.empty() || sending_ || !answers_.empty();
  }
  // Errors: RESOURCE_EXHAUSTED if not even the lengths of all rows fit into an answer.
  absl::StatusOr<std::int64_t> CheckedMaxSentBytes(const SessionShape& shape) const;
  // Takes what the session keeps from the budget.
  absl::Status Reserve(std::int64_t bytes);
  void FailLocked(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Queue(SessionAnswer answer) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // What a message asks for. An error says why the session is to end.
  absl::Status Dispatch(grpc::ByteBuffer& message);
  absl::Status Open(const v1::SessionOpen& open);
  absl::Status Resume(const v1::SessionResume& resume);
  // Says what the session is, and that it is open.
  absl::Status Welcome(v1::SessionInfo said);
  absl::Status TakeStep(Decoded<v1::SessionRequest> request, std::int64_t bytes);
  void Cancel(std::uint64_t number);
  void EndReads(bool closed);

  // Of the step that is running_, which nobody else touches. The session has one step at a time.
  void Begin(const std::shared_ptr<Step>& step);
  void BeginNow(const std::shared_ptr<Step>& step);
  void Leave(const std::shared_ptr<Step>& step, absl::StatusOr<AttentionResult> result);
  SessionAnswer AnswerTo(const v1::SessionStep& step, absl::StatusOr<AttentionResult> result);

  const SessionHost host_;
  const SessionCaller caller_;
  Pass pass_;
  memory::Ticket reserved_;              // goes after the session
  std::unique_ptr<Session> session_;     // made by a message; the running step's
  std::string token_;                    // set with the session; empty if it cannot be resumed
  absl::Duration grace_;                 // likewise
  std::shared_ptr<SessionDriver> self_;  // from Start to Release

  absl::Mutex mutex_;
  std::shared_ptr<Step> running_ ABSL_GUARDED_BY(mutex_);
  std::deque<std::shared_ptr<Step>> waiting_ ABSL_GUARDED_BY(mutex_);  // for the running one
  std::deque<SessionAnswer> answers_ ABSL_GUARDED_BY(mutex_);          // that wait for their write
  bool opened_ ABSL_GUARDED_BY(mutex_) = false;
  bool going_away_ ABSL_GUARDED_BY(mutex_) = false;
  bool asking_ ABSL_GUARDED_BY(mutex_) = false;  // from Ask until the message has been taken
  bool taking_ ABSL_GUARDED_BY(mutex_) = false;  // a message, which may use the session
  bool sending_ ABSL_GUARDED_BY(mutex_) = false;
  bool all_read_ ABSL_GUARDED_BY(mutex_) = false;
  bool given_up_ ABSL_GUARDED_BY(mutex_) = false;
  bool over_ ABSL_GUARDED_BY(mutex_) = false;
  int acting_ ABSL_GUARDED_BY(mutex_) = 0;        // threads that do what was decided
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;   // by the client: nothing is a loss any more
  bool lost_ ABSL_GUARDED_BY(mutex_) = false;     // the connection: that is why it ends
  bool abandon_ ABSL_GUARDED_BY(mutex_) = false;  // the connection is to be
  Clock::time_point begun_at_ ABSL_GUARDED_BY(mutex_) = Clock::now();
  Clock::time_point active_at_ ABSL_GUARDED_BY(mutex_) = begun_at_;
  v1::SessionInfo said_ ABSL_GUARDED_BY(mutex_);  // to operators
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace attnd::server
