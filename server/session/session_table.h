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
#include "absl/functional/function_ref.h"
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
  // For how long it has been without a step; nullopt if it has one, or is not opened yet, or is ending.
  virtual std::optional<absl::Duration> IdleFor(Clock::time_point now) = 0;
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
  // Ends sessions whose lease is over, those that were idle for longest first, until there is `enough`. Call it without
  // a lock. May throw std::bad_alloc.
  void MakeRoom(absl::FunctionRef<bool()> enough);
  void Remove(const OpenSession* session);

  // Of a session that can be resumed. May throw std::bad_alloc.
  void SetToken(const OpenSession* session, const std::string& token);
  // Takes the place of `session`, whose connection is lost, and keeps its state for as long as that says, or until it
  // is resumed. False if it does not: the server stops, or as many are kept as may be open. `state` is taken only if it
  // does. May throw std::bad_alloc.
  bool Park(const OpenSession* session, SessionState& state);
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
  std::vector<std::shared_ptr<OpenSession>> All() const;
  void CountOut(const Entry& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status TryAdd(const std::shared_ptr<OpenSession>& session, const memory::Account* peer);

  const SessionOptions options_;
  mutable absl::Mutex mutex_;
  std::map<const OpenSession*, Entry> sessions_ ABSL_GUARDED_BY(mutex_);
  std::map<const memory::Account*, std::int64_t> of_peers_ ABSL_GUARDED_BY(mutex_);  // parked ones left out
  std::int64_t parked_ ABSL_GUARDED_BY(mutex_) = 0;
  std::uint64_t next_id_ ABSL_GUARDED_BY(mutex_) = 1;
  std::int64_t evicted_ ABSL_GUARDED_BY(mutex_) = 0;
  bool going_away_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace attnd::server
