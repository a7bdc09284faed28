#include "client/src/waking_thread.h"

#include <sys/eventfd.h>

#include <system_error>
#include <thread>
#include <utility>

namespace attnd::client {

bool WakingThread::Start(std::function<void()> run) {
  if (event_.valid()) return true;
  shm::UniqueFd event(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!event.valid()) return false;
  try {
    std::thread(std::move(run)).detach();
  } catch (const std::system_error&) {
    return false;  // the system has no thread left
  }
  event_ = std::move(event);  // no race: the thread first takes the lock that our caller holds
  return true;
}

void WakingThread::Wake() const {
  if (event_.valid()) eventfd_write(event_.get(), 1);
}

void WakingThread::Clear() const {
  eventfd_t count;
  eventfd_read(event_.get(), &count);
}

}  // namespace attnd::client
