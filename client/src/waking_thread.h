// A thread that waits for sockets on behalf of its owner, and what wakes it from that.
#pragma once

#include <functional>

#include "attnd/shm/unique_fd.h"

namespace attnd::client {

// Guarded by the owner's lock, which the thread takes before it looks at this.
class WakingThread {
 public:
  // Runs `run` on a thread of its own, unless one runs already. False if the system has no thread, or no descriptor,
  // left. The thread is detached: `run` has to keep its owner.
  bool Start(std::function<void()> run);

  // Makes fd() readable. Does nothing before Start.
  void Wake() const;

  // The thread has taken note of what it was woken for.
  void Clear() const;

  // For poll.
  int fd() const { return event_.get(); }

 private:
  shm::UniqueFd event_;
};

}  // namespace attnd::client
