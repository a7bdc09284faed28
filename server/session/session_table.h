// The sessions that are open: how many, whose, and for how long.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "attnd/v1/session.pb.h"
#include "memory/ledger.h"

namespace attnd::server {

struct SessionOptions {
  std::int64_t most = 1024;                 // sessions at a time
  std::int64_t most_of_peer = 256;          // of one peer
  absl::Duration idle = absl::Minutes(10);  // without a step; infinite: any time
  absl::Duration life = absl::Hours(24);    // likewise
};

// A session that is open, from its stream's start on.
class OpenSession {
 public:
  using Clock = std::chrono::steady_clock;

  virtual ~OpenSession() = default;
  // Ends the session with ABORTED if it has been idle, or open, for longer than it may. Whether it has.
  virtual bool EndIfOver(Clock::time_point now) = 0;
  // Ends it with ABORTED, for an operator. False if it is ending already.
  virtual bool Evict() = 0;
  // All of `info` but the id.
  virtual void Describe(Clock::time_point now, v1::SessionInfo& info) = 0;
  // Tells the client that the server stops.
  virtual void SayGoingAway(absl::Duration time_left) = 0;
};

// Looks for sessions that are over on a thread of its own. Thread-safe; outlives the sessions.
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

  // Errors: UNAVAILABLE (the server is stopping), RESOURCE_EXHAUSTED (too many of the peer's, or in all).
  absl::Status Add(const std::shared_ptr<OpenSession>& session, const memory::Account* peer);
  void Remove(const OpenSession* session);

  // In the order in which they were added. May throw std::bad_alloc.
  v1::ListSessionsResponse List() const;
  // Errors: NOT_FOUND.
  absl::Status Evict(std::uint64_t id);

  // For a server that stops: takes no session any more, and tells those that are open.
  void GoAway(absl::Duration time_left);

  Use use() const;

 private:
  struct Entry {
    std::weak_ptr<OpenSession> session;
    const memory::Account* peer;  // only compared
    std::uint64_t id;
  };
  void Run();

  const SessionOptions options_;
  mutable absl::Mutex mutex_;
  std::map<const OpenSession*, Entry> sessions_ ABSL_GUARDED_BY(mutex_);
  std::map<const memory::Account*, std::int64_t> of_peers_ ABSL_GUARDED_BY(mutex_);
  std::uint64_t next_id_ ABSL_GUARDED_BY(mutex_) = 1;
  std::int64_t evicted_ ABSL_GUARDED_BY(mutex_) = 0;
  bool going_away_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace attnd::server
