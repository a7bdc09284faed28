// The connections that gRPC has been given and has not closed.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <string>
#include <unordered_map>
#include <utility>

namespace attnd::server {

// gRPC closes a connection's descriptor without telling anybody. Sweep finds closed connections with fstat: a
// descriptor is still the same socket if its inode is the same. So the table need not own descriptors. Not thread-safe.
class ConnectionTable {
 public:
  // Adds an open socket. Its descriptor number may be that of a socket that was closed since.
  void Add(int fd, const std::string& peer);

  // How many were open at the last sweep or have been added since; never too few.
  std::size_t size() const { return sockets_.size(); }
  // The same for one peer.
  std::size_t CountOf(const std::string& peer) const;

  // Removes the connections that have been closed. Makes one system call for each connection; if that takes long, some
  // calls of Sweep do nothing, so that it uses at most a twentieth of a thread.
  void Sweep();

 private:
  using Identity = std::pair<dev_t, ino_t>;

  using Counts = std::unordered_map<std::string, std::size_t>;
  struct Socket {
    Identity identity;
    Counts::pointer peer = nullptr;
  };
  void CountOut(const Socket& socket);

  std::unordered_map<int, Socket> sockets_;
  Counts peers_;  // how many sockets each peer has
  std::chrono::steady_clock::time_point next_sweep_;
};

}  // namespace attnd::server
