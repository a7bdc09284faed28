// The socket at which callers on the same host hand over memory (proto/attnd/shm/protocol.h) and call
// (attnd/v1/local.proto).
#pragma once

#include <sys/types.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "attnd/shm/unique_fd.h"
#include "server/shm/closer.h"
#include "server/shm/connection.h"
#include "server/shm/local_calls.h"
#include "server/shm/peer_socket.h"
#include "server/shm/shared_memory.h"

namespace attnd::server {

struct ListeningSocket;

struct ListenerOptions {
  mode_t mode = 0660;
  // How long a caller may leave its answers unread while its socket is full, before its connection is ended.
  std::chrono::milliseconds patience{10000};
};

// Serves one such socket on a thread of its own: takes descriptors, answers with handles, hands datagrams to the calls,
// and drops what a connection has when the connection goes. It waits for no caller: a connection that says anything
// else than a whole, well-formed message, or does not read its answers, is ended, and takes one turn in a round of all
// that have something to say. Thread-safe.
class SharedMemoryListener {
 public:
  // Most connections at once; further ones are closed, and their clients use gRPC alone.
  static constexpr std::size_t kMaxConnections = 1024;

  // Listens at `path`. `memory` is null on a server that shares none. Both are used until this is destroyed; what has
  // begun of `calls` may answer later still. Errors: as ListenUnix.
  static absl::StatusOr<std::unique_ptr<SharedMemoryListener>> Create(const std::string& path,
                                                                      const ListenerOptions& options,
                                                                      std::shared_ptr<SharedMemory> memory,
                                                                      LocalCalls& calls);

  // Takes what has arrived, ends all connections, removes the socket's file, and drops all regions that were handed
  // over here.
  ~SharedMemoryListener();
  SharedMemoryListener(const SharedMemoryListener&) = delete;
  SharedMemoryListener& operator=(const SharedMemoryListener&) = delete;

  // Takes no new connections from now on, and removes the socket's file.
  void StopAccepting() ABSL_LOCKS_EXCLUDED(accepting_mutex_);

 private:
  struct Client {
    Peer peer;
    std::shared_ptr<PeerSocket> socket;
    std::unique_ptr<Connection> connection;
  };
  using Clients = std::map<int, Client>;  // by descriptor

  SharedMemoryListener(std::unique_ptr<ListeningSocket> listener, const ListenerOptions& options, shm::UniqueFd wake,
                       shm::UniqueFd epoll, std::shared_ptr<SharedMemory> memory, LocalCalls& calls);
  void Run();
  // What follows runs on the listener's thread.
  // Whether the socket rests or callers do not read.
  bool Looks() const;
  void WatchListener(bool watch) ABSL_LOCKS_EXCLUDED(accepting_mutex_);
  void Accept() ABSL_LOCKS_EXCLUDED(accepting_mutex_);
  // Takes no new connection until the next look.
  void Rest();
  void Add(shm::UniqueFd fd);
  void Handle(Clients::iterator client, std::uint32_t events);
  enum class Turn : std::uint8_t { kTaken, kNothing, kEnded };
  // Takes one datagram.
  Turn Serve(Client& client);
  Turn ServeNext(Client& client);
  void End(Clients::iterator client);
  // Does something every tenth of a second, for as long as it Looks().
  void Look();
  // Ends connections whose callers have not read for too long.
  void EndStuck();
  void TakeTheRest();

  absl::Mutex accepting_mutex_;
  const std::unique_ptr<ListeningSocket> listener_ ABSL_PT_GUARDED_BY(accepting_mutex_);
  const ListenerOptions options_;
  const shm::UniqueFd wake_;
  const shm::UniqueFd epoll_;
  const std::shared_ptr<SharedMemory> memory_;
  LocalCalls& calls_;
  const std::shared_ptr<PeerSocket::Watch> watch_;  // shared with the sockets
  Closer closer_;                                   // of descriptors
  Closer unmapper_;                                 // of regions
  std::atomic<bool> stop_{false};
  // Of the thread alone.
  bool accepting_ = false;
  bool resting_ = false;  // the system had no descriptor left for a new connection, or too many wait for their close
  PeerSocket::Clock::time_point next_look_;
  Clients clients_;
  std::vector<char> buffer_;
  std::thread thread_;
};

}  // namespace attnd::server
