// The connections that gRPC has been given and not closed yet.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <string>
#include <unordered_map>
#include <utility>

namespace attnd::server {

// gRPC closes a connection's descriptor without telling. A descriptor that is still open is still the same socket,
// which fstat shows by its inode; so nothing is held for it, and a closed one is noticed when somebody asks. Not
// thread-safe.
class ConnectionTable {
 public:
  // Takes note of an open socket, whose number may have been that of one which has been closed since.
  void Add(int fd, const std::string& peer);

  // How many are open, or were when this was last able to look; never too few.
  std::size_t size() const { return sockets_.size(); }
  // Of one peer.
  std::size_t CountOf(const std::string& peer) const;

  // Forgets those that have been closed. Looks at all of them, one call of the system each; where that takes long it
  // does nothing at times, so as to spend at most a twentieth of a thread.
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
  Counts peers_;  // how many of each
  std::chrono::steady_clock::time_point next_sweep_;
};

}  // namespace attnd::server
