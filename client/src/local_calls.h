// Calls over the socket PATH.shm: connections for them and for sessions, and what is known of the server.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "attnd/options.h"
#include "client/src/keepalive.h"
#include "client/src/local_connection.h"
#include "client/src/local_socket.h"

namespace attnd::client {

// Thread-safe.
class LocalCalls {
 public:
  using Clock = LocalSocket::Clock;

  // The most connections; more calls at once go by gRPC.
  static constexpr std::size_t kMaxConnections = 64;
  // A connection that has been idle for longer is closed when another one becomes idle.
  static constexpr Clock::duration kMaxIdleTime = std::chrono::seconds(10);
  // As RegionKeeper's.
  static constexpr Clock::duration kPatience = std::chrono::seconds(1);
  static constexpr Clock::duration kRest = std::chrono::seconds(1);
  static constexpr Clock::duration kRestAfterRefusal = std::chrono::seconds(10);

  // The server's socket is at `path`.
  LocalCalls(std::string path, std::string user_agent, const Keepalive& keepalive)
      : path_(std::move(path)), user_agent_(std::move(user_agent)), keepalive_(keepalive) {}
  LocalCalls(const LocalCalls&) = delete;

  // `target` is a gRPC name; null if it is no path of a Unix socket.
  static std::shared_ptr<LocalCalls> ForTarget(const std::string& target, std::string user_agent,
                                               const Keepalive& keepalive);

  // A connection for one call, to be given back; null if calls cannot go this way now. Where there is none, makes one,
  // and waits for the server: for kPatience at most, and until the call's deadline or cancellation.
  std::shared_ptr<LocalConnection> Take(const CallOptions& options) ABSL_LOCKS_EXCLUDED(mutex_);

  // A connection for a session, which is not given back, and not one of kMaxConnections; null likewise. Always makes
  // one: a session stays with the way that it begins with, so it does not go by gRPC because another caller is finding
  // out.
  std::unique_ptr<LocalSocket> Connect(const CallOptions& options) ABSL_LOCKS_EXCLUDED(mutex_);

  // For each connection that was taken: it may have another call.
  void Put(std::shared_ptr<LocalConnection> connection) ABSL_LOCKS_EXCLUDED(mutex_);
  // Instead: it may not, and is closed.
  void Drop(std::shared_ptr<LocalConnection> connection) ABSL_LOCKS_EXCLUDED(mutex_);
  // Instead: the server had closed it, and the idle ones with it, as it does when it ends. `rest`: how long it is left
  // alone.
  void DropAll(std::shared_ptr<LocalConnection> connection, Clock::duration rest = Clock::duration::zero())
      ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Idle {
    std::shared_ptr<LocalConnection> connection;
    Clock::time_point since;
  };

  // Connects, and waits for `left`.
  LocalSocket::Made Make(const CallOptions& options, absl::Duration left) const;
  // Takes note of what became of it. Whether there is a connection.
  bool Learn(LocalSocket::Made::Outcome outcome, absl::Duration waited) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::string path_, user_agent_;
  const Keepalive keepalive_;
  absl::Mutex mutex_;
  std::deque<Idle> idle_ ABSL_GUARDED_BY(mutex_);  // the one used last is the last
  std::size_t made_ ABSL_GUARDED_BY(mutex_) = 0;   // idle, taken, or being made
  bool known_ ABSL_GUARDED_BY(mutex_) = false;     // the server takes calls
  std::size_t making_ ABSL_GUARDED_BY(mutex_) = 0;
  Clock::time_point rest_until_ ABSL_GUARDED_BY(mutex_) = Clock::time_point::min();
};

}  // namespace attnd::client
