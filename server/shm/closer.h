// Closes what may take long to close, on a thread of its own.
#pragma once

#include <cstddef>
#include <memory>

#include "attnd/shm/unique_fd.h"

namespace attnd::server {

// A descriptor that a caller has sent may be of a file system that the caller serves itself (FUSE), or a socket that
// lingers: closing it takes as long as the caller likes. A region takes a while to unmap, as its pages are freed.
// Regions have a closer of their own, so that no caller's descriptor holds them up. Thread-safe.
class Closer {
 public:
  Closer();
  // Waits for what is waiting, for a second at most: a descriptor whose close does not end keeps nobody.
  ~Closer();
  Closer(const Closer&) = delete;
  Closer& operator=(const Closer&) = delete;

  // Both never throw: what there is no memory to keep for the thread is closed, or let go of, on the calling one.
  // Takes over the descriptor, which may be none.
  void Close(shm::UniqueFd fd);
  // Lets go of it.
  void Release(std::shared_ptr<const void> held);

  // Waits for what is waiting now, which must be nothing that a caller can hold up.
  void Drain();

  // How many descriptors are not closed yet.
  std::size_t waiting() const;

 private:
  struct State;
  // Shared with the thread, which may outlive this.
  const std::shared_ptr<State> state_;
};

}  // namespace attnd::server
