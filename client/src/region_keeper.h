// Registers regions of memory with the server over one socket, on its own thread: so no caller waits for the server
// under a lock, in a deleter, or on a gRPC thread.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "attnd/shm/protocol.h"
#include "attnd/shm/unique_fd.h"
#include "client/src/waking_thread.h"

namespace attnd::client {

// Thread-safe; no method blocks. The thread starts with the first Settle that has to wait, and ends soon after Stop.
class RegionKeeper : public std::enable_shared_from_this<RegionKeeper> {
 public:
  using Clock = std::chrono::steady_clock;

  // A server that does not answer within this time is taken not to share memory; an answer normally takes microseconds.
  static constexpr Clock::duration kPatience = std::chrono::seconds(1);
  // Minimum delay before reconnecting: kRestAfterSilence after the server did not answer, kRest if it could not be
  // reached or closed the connection without answering.
  static constexpr Clock::duration kRestAfterSilence = std::chrono::seconds(10);
  static constexpr Clock::duration kRest = std::chrono::seconds(1);

  // Memory that is, or may be, registered with the server. The keeper's mutex guards all members except the constants.
  struct Region {
    Region(shm::UniqueFd fd, std::size_t size) : fd(std::move(fd)), size(size) {}
    const shm::UniqueFd fd;
    const std::size_t size;
    enum class State : std::uint8_t { kUnknown, kAsked, kShared, kRefused } state = State::kUnknown;
    shm::Handle handle{};  // valid if kShared
    bool released = false;
  };
  using Regions = std::vector<std::shared_ptr<Region>>;

  // The server's socket is at `path`.
  explicit RegionKeeper(std::string path) : path_(std::move(path)) {}

  // Returns true if it is known for all `regions` whether the server shares them (if there are none: whether it shares
  // memory at all). Otherwise asks the server and calls `settled` once on the keeper's thread, which it must not block:
  // when all is known; at the latest at `deadline` and after kPatience.
  bool Settle(Regions regions, Clock::time_point deadline, std::function<void()> settled) ABSL_LOCKS_EXCLUDED(mutex_);

  // What is known now, without waiting: whether the server shares memory, and the handle of a shared region.
  bool Offered() ABSL_LOCKS_EXCLUDED(mutex_);
  std::optional<shm::Handle> HandleOf(const Region& region) ABSL_LOCKS_EXCLUDED(mutex_);

  // Releases a region at the server, asynchronously.
  void Release(const std::shared_ptr<Region>& region) ABSL_LOCKS_EXCLUDED(mutex_);

  // Checks whether the server has closed the connection, and if so forgets all handles.
  void Check() ABSL_LOCKS_EXCLUDED(mutex_);

  // Closes the connection; with it the server forgets all regions.
  void Forget() ABSL_LOCKS_EXCLUDED(mutex_);

  // Ends the thread and the connection. All waiters are called; their regions are not shared.
  void Stop() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Waiter {
    Regions regions;
    Clock::time_point deadline;
    std::function<void()> settled;
  };
  // A message to the server: to register the region, or to release the handle.
  struct Job {
    shm::Operation operation;
    std::shared_ptr<Region> region;
    shm::Handle handle;
  };

  bool Resting() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return Clock::now() < next_attempt_; }
  // Starts the thread if it is not running. Returns false if the system has no thread or no descriptor left.
  bool Started() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool IsSettled(const Regions& regions) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Ask(const Regions& regions) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // The following functions run on the thread.
  void Run();
  void Step() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Connect() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Drop(Clock::duration rest) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Receive() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Finish(const shm::Reply& reply) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::vector<std::function<void()>> TakeSettled() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Clock::time_point NextTime() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::string path_;
  absl::Mutex mutex_;
  WakingThread thread_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  shm::UniqueFd socket_ ABSL_GUARDED_BY(mutex_);  // closed only by the thread, which polls it
  bool forget_ ABSL_GUARDED_BY(mutex_) = false;   // the thread has to close the socket
  Clock::time_point next_attempt_ ABSL_GUARDED_BY(mutex_) = Clock::time_point::min();
  std::list<Waiter> waiters_ ABSL_GUARDED_BY(mutex_);
  std::deque<Job> jobs_ ABSL_GUARDED_BY(mutex_);        // not sent yet
  std::optional<Job> current_ ABSL_GUARDED_BY(mutex_);  // sent and not answered
  Clock::time_point answer_by_ ABSL_GUARDED_BY(mutex_);
  Regions known_ ABSL_GUARDED_BY(mutex_);  // this connection's regions whose state is not kUnknown
};

}  // namespace attnd::client
