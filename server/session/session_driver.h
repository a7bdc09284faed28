// A session from its first message to its end, independent of the transport.
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

// What all sessions of a server share. Borrowed.
struct SessionHost {
  AttentionEngine& engine;
  const model::Registry& registry;
  SessionTable& table;
};

// The peer that has a session.
struct SessionCaller {
  std::string address;                               // as in SessionInfo.peer
  std::shared_ptr<memory::Account> account;          // for the peer's steps
  std::shared_ptr<memory::Account> session_account;  // for what its sessions keep
  schedule::Clock::time_point deadline = schedule::Clock::time_point::max();
};

// A SessionReply until it is with the transport. The message is destroyed before its reservation.
struct SessionAnswer {
  memory::Ticket lease;
  grpc::ByteBuffer message;
};

// Drives one session. It reads up to two messages ahead of the step under computation, and begins no step while an
// answer waits behind the one being written. So in addition to its reservation it holds at most three messages and
// three results, all charged to the ledger, however slowly its answers are read. It is in the host's table until its
// end; by then all it kept is freed or parked. Thread-safe.
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
  // Implemented by the transport. Each is called on any thread, must not wait for another event, and is followed by the
  // events named below, possibly before it returns.

  // Asks for the next message. Followed by Take, NoMore, Close, Fail or Lose.
  virtual void Ask() = 0;
  // Sends an answer. Followed by Sent. One at a time.
  virtual void Send(SessionAnswer answer) = 0;
  // Reports how the session has ended, and leaves the gate (`pass`). The last call on the transport; the session may be
  // gone after it.
  virtual void SayEnd(const absl::Status& status, Pass pass) = 0;
  // Abandons the connection, so that Sent follows soon for an answer under way. Needs no event of its own.
  virtual void Abandon() {}

  // The largest SessionRequest that the transport can deliver, in bytes.
  virtual std::int64_t max_message_bytes() const = 0;
  // The most bytes of output and log-sum-exp in an answer of a session of this shape.
  virtual std::int64_t MaxSentBytes(const SessionShape& shape) const = 0;

  // Events, reported by the transport. None throws. After each the session may be gone, unless the caller holds a
  // reference to it.

  // Called once, before any other event. The session holds a reference to itself from then on until Release. Errors: as
  // SessionTable::Add, and then nothing has begun.
  absl::Status Start(const std::shared_ptr<SessionDriver>& self);
  // A SessionRequest has arrived. Clears `message`.
  void Take(grpc::ByteBuffer& message);
  // No more messages come. If the session can be resumed, its connection counts as lost.
  void NoMore();
  // The client has closed the session: no more messages come, and it ends, not kept, once its steps are answered.
  void Close();
  void Sent(bool ok);
  // Ends the session with this error, unless it already has one.
  void Fail(const absl::Status& status);
  // The same for a lost connection: another connection may then resume the session.
  void Lose(const absl::Status& status);
  // No more events come.
  void Release();

 private:
  // A step from its arrival until it is answered.
  struct Step {
    std::uint64_t number = 0;
    memory::Ticket message_lease;  // destroyed after the message
    Decoded<v1::SessionRequest> request;
    ComputeOptions options;
    absl::Status fault;  // an error found on arrival, answered in the step's turn

    const v1::SessionStep& step() const { return request.header.step(); }
  };

  struct Next {
    std::optional<schedule::CancelToken> give_up;  // cancels the running step
    std::shared_ptr<Step> begin;
    bool abandon = false;
    bool ask = false;
    std::optional<SessionAnswer> send;
    bool finish = false;
    absl::Status status;  // the session's final status

    bool anything() const {
      return give_up.has_value() || begin != nullptr || abandon || ask || send.has_value() || finish;
    }
  };

  // Update applies an event under the lock, Decide determines what follows from it, and Do carries that out without the
  // lock. The session ends once nothing is being taken, computed or written, so no callback outlives it. It may be gone
  // after Update.
  template <typename Change>
  void Update(Change change);
  Next Decide() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Do(Next next);
  void End(const absl::Status& status);
  void EndNow(const absl::Status& status);
  // Moves what the session keeps to the table if its connection is lost and it can be resumed.
  void ParkIfLost();
  void LoseLocked(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  bool Busy() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return running_ != nullptr || !waiting_.empty() || sending_ || !answers_.empty();
  }
  // Errors: RESOURCE_EXHAUSTED if not even the lengths of all rows fit into an answer.
  absl::StatusOr<std::int64_t> CheckedMaxSentBytes(const SessionShape& shape) const;
  // Reserves the session's memory in the ledger.
  absl::Status Reserve(std::int64_t bytes);
  void FailLocked(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Queue(SessionAnswer answer) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // Carries out a message. An error is the one that the session is to end with.
  absl::Status Dispatch(grpc::ByteBuffer& message);
  absl::Status Open(const v1::SessionOpen& open);
  absl::Status Resume(const v1::SessionResume& resume);
  // Answers that the session is open, with its parameters.
  absl::Status Welcome(v1::SessionInfo said);
  absl::Status TakeStep(Decoded<v1::SessionRequest> request, std::int64_t bytes);
  void Cancel(std::uint64_t number);
  void EndReads(bool closed);

  // These handle the running_ step, which no other thread touches. A session computes one step at a time.
  void Begin(const std::shared_ptr<Step>& step);
  void BeginNow(const std::shared_ptr<Step>& step);
  void Leave(const std::shared_ptr<Step>& step, absl::StatusOr<AttentionResult> result);
  SessionAnswer AnswerTo(const v1::SessionStep& step, absl::StatusOr<AttentionResult> result);

  const SessionHost host_;
  const SessionCaller caller_;
  Pass pass_;
  memory::Ticket reserved_;              // destroyed after the session
  std::unique_ptr<Session> session_;     // set by open or resume; then used by the running step
  std::string token_;                    // set with the session; empty if it cannot be resumed
  absl::Duration grace_;                 // how long the session is kept without a connection
  std::shared_ptr<SessionDriver> self_;  // from Start to Release

  absl::Mutex mutex_;
  std::shared_ptr<Step> running_ ABSL_GUARDED_BY(mutex_);
  std::deque<std::shared_ptr<Step>> waiting_ ABSL_GUARDED_BY(mutex_);  // steps that wait for the running one
  std::deque<SessionAnswer> answers_ ABSL_GUARDED_BY(mutex_);          // answers that wait for their write
  bool opened_ ABSL_GUARDED_BY(mutex_) = false;
  bool going_away_ ABSL_GUARDED_BY(mutex_) = false;
  bool asking_ ABSL_GUARDED_BY(mutex_) = false;  // from Ask until the message has been taken
  bool taking_ ABSL_GUARDED_BY(mutex_) = false;  // a message is being taken, and may use the session
  bool sending_ ABSL_GUARDED_BY(mutex_) = false;
  bool all_read_ ABSL_GUARDED_BY(mutex_) = false;
  bool given_up_ ABSL_GUARDED_BY(mutex_) = false;
  bool over_ ABSL_GUARDED_BY(mutex_) = false;
  int acting_ ABSL_GUARDED_BY(mutex_) = 0;        // threads that carry out decisions
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;   // by the client: the connection can no longer be lost
  bool lost_ ABSL_GUARDED_BY(mutex_) = false;     // the session ends because its connection is lost
  bool abandon_ ABSL_GUARDED_BY(mutex_) = false;  // the connection is to be abandoned
  Clock::time_point begun_at_ ABSL_GUARDED_BY(mutex_) = Clock::now();
  Clock::time_point active_at_ ABSL_GUARDED_BY(mutex_) = begun_at_;
  v1::SessionInfo said_ ABSL_GUARDED_BY(mutex_);  // what ListSessions shows
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace attnd::server
