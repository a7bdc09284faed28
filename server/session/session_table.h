// The sessions that are open: how many, whose, and for how long.
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
  std::int64_t most = 1024;                 // sessions at a time
  std::int64_t most_of_peer = 256;          // of one peer
  absl::Duration lease = absl::Minutes(1);  // without a step, after which another's opening may end it; infinite: never
  absl::Duration idle = absl::Minutes(10);  // without a step; infinite: any time
  absl::Duration life = absl::Hours(24);    // likewise
  absl::Duration grace = absl::Seconds(30);  // without a connection
};

// A session that is open, from its stream's start on.
class OpenSession {
 public:
  using Clock = std::chrono::steady_clock;

  virtual ~OpenSession() = default;
  // Ends the session with ABORTED if it has been idle, or open, for longer than it may. Whether it has.
  virtual bool EndIfOver(Clock::time_point now) = 0;
  struct Idle {
    absl::Duration time;
    std::int64_t reserved_bytes;
  };
  // For how long it has been without a step, and what its end gives back; nullopt if it has one, or is not opened yet,
  // or is ending.
  virtual std::optional<Idle> IdleFor(Clock::time_point now) = 0;
  // Ends it with ABORTED, for another one's opening, if it is idle still for longer than its lease. Whether it has.
  virtual bool EndIfLeaseIsOver(Clock::time_point now) = 0;
  // Ends it with ABORTED, for an operator. False if it is ending already.
  virtual bool Evict() = 0;
  // All of `info` but the id.
  virtual void Describe(Clock::time_point now, v1::SessionInfo& info) = 0;
  // Tells the client that the server stops.
  virtual void SayGoingAway(absl::Duration time_left) = 0;
  // Ends it with UNAVAILABLE, as the server has stopped.
  virtual void EndForStop() = 0;
  // What it keeps, for a connection that resumes it. Nullopt while another connection has it: that one is told to end.
  virtual std::optional<SessionState> Yield() = 0;
};

// Looks for sessions that are over on a thread of its own. Thread-safe. Its destructor waits until each has been
// removed.
class SessionTable {
 public:
  struct Use {
    std::int64_t open = 0;
    std::int64_t evicted = 0;  // since the start
    std::int64_t most = 0;     // that may be open
    std::int64_t most_of_peer = 0;
  };

  explicit SessionTable(const SessionOptions& options);
  ~SessionTable();
  SessionTable(const SessionTable&) = delete;
  SessionTable& operator=(const SessionTable&) = delete;

  const SessionOptions& options() const { return options_; }

  // Errors: UNAVAILABLE (the server is stopping), RESOURCE_EXHAUSTED (too many of the peer's, or in all, though those
  // whose lease is over were ended).
  absl::Status Add(const std::shared_ptr<OpenSession>& session, const memory::Account* peer);
  // Ends sessions whose lease is over, those that were idle for longest first, until they give back `bytes`, if they do
  // together: else none. What they give back may be free a moment later. Whether it ended any. Call it without a lock.
  // May throw std::bad_alloc.
  bool MakeRoom(std::int64_t bytes);
  void Remove(const OpenSession* session);

  // Of a session that can be resumed. May throw std::bad_alloc.
  void SetToken(const OpenSession* session, const std::string& token);
  // Takes the place of `session`, whose connection is lost, and keeps its state for as long as that says, or until it
  // is resumed. It does not, and frees the state, where the server stops, or where as many are kept as may be open, in
  // all or of the peer. May throw std::bad_alloc.
  void Park(const OpenSession* session, SessionState state);
  // Frees what a session kept on a thread of the table's, as that may take long.
  void Free(SessionState state);
  // The state of the session with this token, whose place `by`, which is in the table, takes. Errors: NOT_FOUND;
  // UNAVAILABLE, with when to come back, while another connection has it. May throw std::bad_alloc.
  absl::StatusOr<SessionState> Resume(const std::string& token, const OpenSession* by);

  // In the order in which they were added. May throw std::bad_alloc.
  v1::ListSessionsResponse List() const;
  // Errors: NOT_FOUND.
  absl::Status Evict(std::uint64_t id);

  // For a server that stops: takes no session any more, and tells those that are open.
  void GoAway(absl::Duration time_left);
  // And ends those that are open still. May throw std::bad_alloc.
  void EndAll();

  Use use() const;

 private:
  struct Entry {
    std::weak_ptr<OpenSession> session;
    const memory::Account* peer;  // only compared
    std::uint64_t id;
    std::string token;                         // empty: none
    std::shared_ptr<OpenSession> parked = {};  // what keeps itself no longer
  };
  void Run();
  using Counts = std::map<const memory::Account*, std::int64_t>;
  std::vector<std::shared_ptr<OpenSession>> All() const;
  // Ends one, if there is one whose lease is over, of those that count where the peer, or all (null), have too many.
  // Whether it has.
  bool EndOneOf(const memory::Account* peer);
  bool EndLongestIdle(const std::vector<std::shared_ptr<OpenSession>>& candidates, std::int64_t bytes);
  static void CountOut(Counts& counts, const memory::Account* peer);
  void CountOut(const Entry& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool HasWork() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stopping_ || !to_free_.empty(); }
  absl::Status TryAdd(const std::shared_ptr<OpenSession>& session, const memory::Account* peer);

  const SessionOptions options_;
  mutable absl::Mutex mutex_;
  std::map<const OpenSession*, Entry> sessions_ ABSL_GUARDED_BY(mutex_);
  Counts of_peers_ ABSL_GUARDED_BY(mutex_);  // parked ones left out
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
