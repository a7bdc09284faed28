// Connections to the socket PATH.shm, for calls and for sessions, and what the client knows of the server there.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
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

  // Maximum number of connections; further calls at once use gRPC.
  static constexpr std::size_t kMaxConnections = 64;
  // A connection idle for longer than this is closed when another connection becomes idle.
  static constexpr Clock::duration kMaxIdleTime = std::chrono::seconds(10);
  // How long to wait for the server's welcome, and the minimum delays before reconnecting: kRestAfterRefusal if the
  // server offers no local calls or did not answer within kPatience, kRest after any other failure.
  static constexpr Clock::duration kPatience = std::chrono::seconds(1);
  static constexpr Clock::duration kRest = std::chrono::seconds(1);
  static constexpr Clock::duration kRestAfterRefusal = std::chrono::seconds(10);

  // The server's socket is at `path`.
  LocalCalls(std::string path, std::string user_agent, const Keepalive& keepalive,
             std::function<Clock::time_point()> now = Clock::now)
      : path_(std::move(path)), user_agent_(std::move(user_agent)), keepalive_(keepalive), now_(std::move(now)) {}
  LocalCalls(const LocalCalls&) = delete;

  // `target` is a gRPC target; returns null if it is not the path of a Unix socket.
  static std::shared_ptr<LocalCalls> ForTarget(const std::string& target, std::string user_agent,
                                               const Keepalive& keepalive);

  // Returns a connection for one call, to be given back with Put, Drop or DropAll; null if the call cannot use the
  // local socket now. If no connection is idle, connects and waits for the server: for at most kPatience, and until the
  // call's deadline or cancellation.
  std::shared_ptr<LocalConnection> Take(const CallOptions& options) ABSL_LOCKS_EXCLUDED(mutex_);

  // Returns a new connection for a session, or null as Take. It is not given back and does not count towards
  // kMaxConnections. Unlike Take, does not return null because another caller is still finding out whether the server
  // accepts calls: a session keeps its transport for its whole life.
  std::unique_ptr<LocalSocket> Connect(const CallOptions& options) ABSL_LOCKS_EXCLUDED(mutex_);

  // Gives back a connection that can be used for another call.
  void Put(std::shared_ptr<LocalConnection> connection) ABSL_LOCKS_EXCLUDED(mutex_);
  // Closes a connection that cannot be used again.
  void Drop(std::shared_ptr<LocalConnection> connection) ABSL_LOCKS_EXCLUDED(mutex_);
  // Closes this connection and all idle ones: the server has closed this one, and with it probably all (it does so when
  // it ends), or it is silent. `rest`: minimum delay before reconnecting.
  void DropAll(std::shared_ptr<LocalConnection> connection, Clock::duration rest = Clock::duration::zero())
      ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Idle {
    std::shared_ptr<LocalConnection> connection;
    Clock::time_point since;
  };

  // Connects, and waits for the welcome for at most `left`.
  LocalSocket::Made Make(const CallOptions& options, absl::Duration left) const;
  // Records the outcome of Make. Returns whether there is a connection.
  bool Learn(LocalSocket::Made::Outcome outcome, absl::Duration waited) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::string path_, user_agent_;
  const Keepalive keepalive_;
  const std::function<Clock::time_point()> now_;
  absl::Mutex mutex_;
  std::deque<Idle> idle_ ABSL_GUARDED_BY(mutex_);  // the most recently used is last
  std::size_t made_ ABSL_GUARDED_BY(mutex_) = 0;   // idle, taken, or being made
  bool known_ ABSL_GUARDED_BY(mutex_) = false;     // the server accepts calls
  std::size_t making_ ABSL_GUARDED_BY(mutex_) = 0;
  Clock::time_point rest_until_ ABSL_GUARDED_BY(mutex_) = Clock::time_point::min();
};

}  // namespace attnd::client
