// The open sessions, whose they are, and for how long they may stay.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "attnd/v1/session.pb.h"
#include "memory/ledger.h"
#include "server/session/session_state.h"

namespace attnd::server {

struct SessionOptions {
  std::int64_t most = 1024;                  // open sessions
  std::int64_t most_of_peer = 256;           // open sessions of one peer
  absl::Duration lease = absl::Minutes(1);   // idle time after which it may be evicted for a new one; infinite: never
  absl::Duration idle = absl::Minutes(10);   // idle time after which it is ended; infinite: never
  absl::Duration life = absl::Hours(24);     // age at which it is ended; infinite: never
  absl::Duration grace = absl::Seconds(30);  // the most time without a connection
};

// A session in the table: one with a connection, from the start of the connection's stream on, or a parked one.
class OpenSession {
 public:
  using Clock = std::chrono::steady_clock;

  virtual ~OpenSession() = default;
  // Ends the session with ABORTED if it has been idle, or open, for longer than allowed. Returns whether it ended it.
  virtual bool EndIfOver(Clock::time_point now) = 0;
  struct Idle {
    absl::Duration time;
    std::int64_t reserved_bytes;
  };
  // How long it has been without a step, and the bytes that its end would give back. Returns nullopt if it has a step,
  // is not opened yet, or is ending.
  virtual std::optional<Idle> IdleFor(Clock::time_point now) = 0;
  // Ends it with ABORTED to make room for another, if it is still idle for longer than its lease. Returns whether it
  // ended it.
  virtual bool EndIfLeaseIsOver(Clock::time_point now) = 0;
  // Ends it with ABORTED for an operator. Returns false if it is already ending.
  virtual bool Evict() = 0;
  // Fills in `info`, except for the id.
  virtual void Describe(Clock::time_point now, v1::SessionInfo& info) = 0;
  // Tells the client that the server is stopping.
  virtual void SayGoingAway(absl::Duration time_left) = 0;
  // Ends it with UNAVAILABLE because the server has stopped.
  virtual void EndForStop() = 0;
  // Returns what it keeps, for a connection that resumes it. Returns nullopt while another connection has it, and tells
  // that one to end.
  virtual std::optional<SessionState> Yield() = 0;
};

// The sessions of a server. A thread of its own ends those that are over. Thread-safe. The destructor waits until every
// session has been removed.
class SessionTable {
 public:
  struct Use {
    std::int64_t open = 0;     // parked ones included
    std::int64_t evicted = 0;  // since the server's start
    std::int64_t most = 0;     // the most that may be open
    std::int64_t most_of_peer = 0;
  };

  explicit SessionTable(const SessionOptions& options);
  ~SessionTable();
  SessionTable(const SessionTable&) = delete;
  SessionTable& operator=(const SessionTable&) = delete;

  const SessionOptions& options() const { return options_; }

  // Adds a session. If there are too many, it first evicts one whose lease is over. Errors: UNAVAILABLE (the server is
  // stopping), RESOURCE_EXHAUSTED (still too many, of the peer or in all).
  absl::Status Add(const std::shared_ptr<OpenSession>& session, const memory::Account* peer);
  // Evicts sessions whose lease is over, longest idle first, until they give back `bytes`; evicts none if all of them
  // together would not. Their memory may be free only a moment later. Returns whether it evicted any. Call it without a
  // lock held. May throw std::bad_alloc.
  bool MakeRoom(std::int64_t bytes);
  void Remove(const OpenSession* session);

  // Sets the token by which the session can be resumed. May throw std::bad_alloc.
  void SetToken(const OpenSession* session, const std::string& token);
  // Replaces `session`, whose connection is lost, by a parked one that keeps `state` for its grace time or until it is
  // resumed. If the server is stopping, or as many sessions are parked as may be open (in all, or of the peer), `state`
  // is freed instead. May throw std::bad_alloc.
  void Park(const OpenSession* session, SessionState state);
  // Frees a session's state on the table's thread, because that may take long.
  void Free(SessionState state);
  // Returns the state of the session with this token, and gives its place to `by`, which must be in the table. Errors:
  // NOT_FOUND; UNAVAILABLE with a retry delay while another connection has it. May throw std::bad_alloc.
  absl::StatusOr<SessionState> Resume(const std::string& token, const OpenSession* by);

  // In the order of their ids. May throw std::bad_alloc.
  v1::ListSessionsResponse List() const;
  // Ends the session with this id, for an operator. Errors: NOT_FOUND.
  absl::Status Evict(std::uint64_t id);

  // For a stopping server: adds no further session and notifies the open ones.
  void GoAway(absl::Duration time_left);
  // Then ends the sessions that are still open. May throw std::bad_alloc.
  void EndAll();

  Use use() const;

 private:
  struct Entry {
    std::weak_ptr<OpenSession> session;
    const memory::Account* peer;  // only compared, never dereferenced
    std::uint64_t id;
    std::string token;                         // empty: none
    std::shared_ptr<OpenSession> parked = {};  // owns a parked session; null for one with a connection
  };
  void Run();
  using Counts = std::map<const memory::Account*, std::int64_t>;
  std::vector<std::shared_ptr<OpenSession>> All() const;
  // Evicts the session that has been idle longest, if its lease is over, of `peer` or of all (null); parked ones are
  // left out. Returns whether it evicted one.
  bool EndOneOf(const memory::Account* peer);
  bool EndLongestIdle(const std::vector<std::shared_ptr<OpenSession>>& candidates, std::int64_t bytes);
  static void CountOut(Counts& counts, const memory::Account* peer);
  void CountOut(const Entry& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool HasWork() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stopping_ || !to_free_.empty(); }
  absl::Status TryAdd(const std::shared_ptr<OpenSession>& session, const memory::Account* peer);

  const SessionOptions options_;
  mutable absl::Mutex mutex_;
  std::map<const OpenSession*, Entry> sessions_ ABSL_GUARDED_BY(mutex_);
  Counts of_peers_ ABSL_GUARDED_BY(mutex_);  // without parked ones
  Counts parked_of_peers_ ABSL_GUARDED_BY(mutex_);
  std::vector<SessionState> to_free_ ABSL_GUARDED_BY(mutex_);
  std::int64_t parked_ ABSL_GUARDED_BY(mutex_) = 0;
  std::uint64_t next_id_ ABSL_GUARDED_BY(mutex_) = 1;
  std::int64_t evicted_ ABSL_GUARDED_BY(mutex_) = 0;
  bool going_away_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace attnd::server
