// A thread that polls sockets for its owner and can be woken.
#pragma once

#include <functional>

#include "attnd/shm/unique_fd.h"

namespace attnd::client {

// Guarded by the owner's lock, which the thread takes before it accesses this object.
class WakingThread {
 public:
  // Runs `run` on a new thread, unless one was started before. Returns false if the system has no thread or no
  // descriptor left. The thread is detached: `run` must keep its owner alive.
  bool Start(std::function<void()> run);

  // Makes fd() readable. Does nothing before Start.
  void Wake() const;

  // Makes fd() unreadable again; the thread calls this after it wakes.
  void Clear() const;

  // For poll.
  int fd() const { return event_.get(); }

 private:
  shm::UniqueFd event_;
};

}  // namespace attnd::client
