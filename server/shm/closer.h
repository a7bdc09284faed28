// Closes descriptors and frees regions on a thread of its own, because either may take long.
#pragma once

#include <cstddef>
#include <memory>

#include "attnd/shm/unique_fd.h"

namespace attnd::server {

// A descriptor that a caller has sent may belong to a file system that the caller serves itself (FUSE), or be a socket
// that lingers: closing it takes as long as the caller chooses. Unmapping a region takes a while because its pages are
// freed. Regions have a closer of their own, so that no caller's descriptor delays them. Thread-safe.
class Closer {
 public:
  Closer();
  // Waits at most a second for the queue to empty, so that a descriptor whose close never returns does not block it.
  ~Closer();
  Closer(const Closer&) = delete;
  Closer& operator=(const Closer&) = delete;

  // Neither Close nor Release throws: without memory to queue the object, they close or release it on the calling
  // thread.
  //
  // Takes over the descriptor, which may be invalid.
  void Close(shm::UniqueFd fd);
  // Drops the reference.
  void Release(std::shared_ptr<const void> held);

  // Waits until the queue is empty. No caller may be able to delay what is in it.
  void Drain();

  // Descriptors that are not closed yet.
  std::size_t waiting() const;

 private:
  struct State;
  // Shared with the thread, which may outlive this.
  const std::shared_ptr<State> state_;
};

}  // namespace attnd::server
