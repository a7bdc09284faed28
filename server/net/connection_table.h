// The connections that gRPC has been given and not closed yet.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <unordered_map>
#include <utility>

namespace attnd::server {

// gRPC closes a connection's descriptor without telling. A descriptor that is still open is still the same socket,
// which fstat shows by its inode; so nothing is held for it, and a closed one is noticed when somebody asks. Not
// thread-safe.
class ConnectionTable {
 public:
  // Takes note of an open socket, whose number may have been that of one which has been closed since.
  void Add(int fd);

  // How many are open, or were when this was last able to look; never too few.
  std::size_t size() const { return sockets_.size(); }

  // Forgets those that have been closed. Looks at all of them, one call of the system each; where that takes long it
  // does nothing at times, so as to spend at most a twentieth of a thread.
  void Sweep();

 private:
  using Identity = std::pair<dev_t, ino_t>;

  std::unordered_map<int, Identity> sockets_;
  std::chrono::steady_clock::time_point next_sweep_;
};

}  // namespace attnd::server
