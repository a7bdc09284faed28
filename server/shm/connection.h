// The protocol of one connection at PATH.shm, without its socket.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "attnd/shm/protocol.h"
#include "attnd/shm/unique_fd.h"
#include "server/shm/closer.h"
#include "server/shm/local_calls.h"
#include "server/shm/shared_memory.h"

namespace attnd::server {

// While this many descriptors wait to be closed, no connection is accepted, and a client that sends another descriptor
// which is not mapped loses its connection.
inline constexpr std::size_t kMaxClosing = 64;

// Answers the fixed messages, which begin with their magic, and passes all others to the connection's calls. Not
// thread-safe.
class Connection {
 public:
  // `memory` is null on a server that shares none. `closer` is for descriptors, `unmapper` for regions. All outlive
  // this. `user`: the connection's user (UserName).
  Connection(SharedMemory::Owner owner, std::string user, SharedMemory* memory, Closer& closer, Closer& unmapper,
             std::shared_ptr<DatagramSink> sink, std::shared_ptr<LocalConnection> calls);
  // Ends the connection's calls and drops its regions.
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // Takes one whole datagram. An error is the reason to end the connection.
  absl::Status Take(absl::string_view datagram, std::vector<shm::UniqueFd> descriptors);

 private:
  absl::Status TakeFixed(absl::string_view datagram, std::vector<shm::UniqueFd> descriptors);
  absl::StatusOr<shm::Handle> Perform(const shm::Request& request, int memory);
  absl::StatusOr<shm::Handle> Register(int memory, std::uint64_t size);
  absl::StatusOr<shm::Handle> Release(const shm::Handle& handle);

  const SharedMemory::Owner owner_;
  const std::string user_;
  SharedMemory* const memory_;
  Closer& closer_;
  Closer& unmapper_;
  const std::shared_ptr<DatagramSink> sink_;
  const std::shared_ptr<LocalConnection> calls_;
};

}  // namespace attnd::server
