// The socket at which callers on the same host hand over memory (proto/attnd/shm/protocol.h).
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "attnd/shm/protocol.h"
#include "attnd/shm/unique_fd.h"
#include "server/shm/shared_memory.h"

namespace attnd::server {

struct ListeningSocket;

// Serves one such socket on a thread of its own: takes descriptors, answers with handles, and drops a connection's
// regions when the connection goes. A connection that says anything else than a whole, well-formed request, or does not
// read its answers, is closed. Thread-safe.
class SharedMemoryListener {
 public:
  // Most connections at once; further ones are closed, and their clients send their tensors instead.
  static constexpr std::size_t kMaxConnections = 1024;

  // Listens at `path` with the permissions `mode`. Errors: as ListenUnix.
  static absl::StatusOr<std::unique_ptr<SharedMemoryListener>> Create(const std::string& path, mode_t mode,
                                                                      std::shared_ptr<SharedMemory> memory);

  // Closes everything, removes the socket's file, and drops all regions that were handed over here.
  ~SharedMemoryListener();
  SharedMemoryListener(const SharedMemoryListener&) = delete;
  SharedMemoryListener& operator=(const SharedMemoryListener&) = delete;

 private:
  struct Connection {
    shm::UniqueFd fd;
    SharedMemory::Owner owner;
  };

  SharedMemoryListener(std::unique_ptr<ListeningSocket> listener, shm::UniqueFd stop, shm::UniqueFd epoll,
                       std::shared_ptr<SharedMemory> memory);
  void Run();
  // What follows runs on the listener's thread.
  void Accept();
  void Close(int fd);
  // Takes one message; false if the connection is to be closed.
  bool Serve(const Connection& connection);
  shm::Reply Answer(SharedMemory::Owner owner, const shm::Request& request, shm::UniqueFd memory);
  void WatchListener(bool watch);

  const std::unique_ptr<ListeningSocket> listener_;
  const shm::UniqueFd stop_;
  const shm::UniqueFd epoll_;
  const std::shared_ptr<SharedMemory> memory_;
  std::map<int, Connection> connections_;
  bool accepting_ = false;
  std::thread thread_;
};

}  // namespace attnd::server
