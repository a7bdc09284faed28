// The socket at which callers on the same host share memory (proto/attnd/shm/protocol.h) and call
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
  // How long a caller may leave its answers unread while its socket is full before its connection is ended.
  std::chrono::milliseconds patience{10000};
};

// Serves one such socket on a thread of its own: takes descriptors, answers with handles, passes datagrams to the
// calls, and cancels a connection's calls and drops its regions when it ends. It waits for no caller: a connection that
// sends anything but whole, well-formed messages, or does not read its answers, is ended, and each connection gets one
// turn per round. Thread-safe.
class SharedMemoryListener {
 public:
  // The most connections at once; further ones are closed, and their clients use gRPC alone.
  static constexpr std::size_t kMaxConnections = 1024;

  // Listens at `path`. `memory` is null on a server that shares none. `memory` and `calls` are used until this is
  // destroyed; calls under way may answer even later. Errors: as ListenUnix.
  static absl::StatusOr<std::unique_ptr<SharedMemoryListener>> Create(const std::string& path,
                                                                      const ListenerOptions& options,
                                                                      std::shared_ptr<SharedMemory> memory,
                                                                      LocalCalls& calls);

  // Takes what has arrived, ends all connections, removes the socket's file, and drops all regions that were registered
  // here.
  ~SharedMemoryListener();
  SharedMemoryListener(const SharedMemoryListener&) = delete;
  SharedMemoryListener& operator=(const SharedMemoryListener&) = delete;

  // Accepts no new connections from now on, and removes the socket's file.
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
  // The functions below run on the listener's thread.
  //
  // Whether Look has work: accepting is suspended, or some callers do not read their answers.
  bool Looks() const;
  void WatchListener(bool watch) ABSL_LOCKS_EXCLUDED(accepting_mutex_);
  void Accept() ABSL_LOCKS_EXCLUDED(accepting_mutex_);
  // Suspends accepting until the next look.
  void Rest();
  void Add(shm::UniqueFd fd);
  void Handle(Clients::iterator client, std::uint32_t events);
  enum class Turn : std::uint8_t { kTaken, kNothing, kEnded };
  // Takes one datagram.
  Turn Serve(Client& client);
  Turn ServeNext(Client& client);
  void End(Clients::iterator client);
  // While Looks() holds, resumes accepting and ends stuck connections, at most every tenth of a second.
  void Look();
  // Ends connections whose callers have left answers unread for too long.
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
  Closer closer_;                                   // closes descriptors
  Closer unmapper_;                                 // unmaps regions
  std::atomic<bool> stop_{false};
  // Used by the thread alone.
  bool accepting_ = false;
  bool resting_ = false;  // accepting is suspended: no descriptor or memory for a connection, or too many closes wait
  PeerSocket::Clock::time_point next_look_;
  Clients clients_;
  std::vector<char> buffer_;
  std::thread thread_;
};

}  // namespace attnd::server
