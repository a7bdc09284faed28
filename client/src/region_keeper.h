// Hands regions of memory to the server over one socket, on a thread of its own, so that no caller waits for the server
// under a lock, in a deleter, or on a thread of gRPC.
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

// Thread-safe; no method blocks. The thread starts with the first wait and ends soon after Stop.
class RegionKeeper : public std::enable_shared_from_this<RegionKeeper> {
 public:
  using Clock = std::chrono::steady_clock;

  // A server that has not answered for this long is taken not to share memory; an answer takes microseconds.
  static constexpr Clock::duration kPatience = std::chrono::seconds(1);
  // How long the server is left alone after that, and after it was found not to share memory.
  static constexpr Clock::duration kRestAfterSilence = std::chrono::seconds(10);
  static constexpr Clock::duration kRest = std::chrono::seconds(1);

  // Memory that is or may be known to the server. The keeper's mutex guards all but the constants.
  struct Region {
    Region(shm::UniqueFd fd, std::size_t size) : fd(std::move(fd)), size(size) {}
    const shm::UniqueFd fd;
    const std::size_t size;
    enum class State : std::uint8_t { kUnknown, kAsked, kShared, kRefused } state = State::kUnknown;
    shm::Handle handle{};  // kShared
    bool released = false;
  };
  using Regions = std::vector<std::shared_ptr<Region>>;

  // The server's socket is at `path`.
  explicit RegionKeeper(std::string path) : path_(std::move(path)) {}

  // True if it is known of all `regions` whether the server shares them (with none: whether it shares memory at all).
  // Otherwise asks the server and calls `settled` once on the keeper's thread, which it must not block: when all is
  // known, at the latest at `deadline` or after kPatience.
  bool Settle(Regions regions, Clock::time_point deadline, std::function<void()> settled) ABSL_LOCKS_EXCLUDED(mutex_);

  // What is known now.
  bool Offered() ABSL_LOCKS_EXCLUDED(mutex_);
  std::optional<shm::Handle> HandleOf(const Region& region) ABSL_LOCKS_EXCLUDED(mutex_);

  // Lets the server forget a region, soon.
  void Release(const std::shared_ptr<Region>& region) ABSL_LOCKS_EXCLUDED(mutex_);

  // Takes note if the server has closed the connection.
  void Check() ABSL_LOCKS_EXCLUDED(mutex_);

  // Gives up the connection, with which the server forgets all regions.
  void Forget() ABSL_LOCKS_EXCLUDED(mutex_);

  // Ends the thread and the connection. What waits is settled as not shared.
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
  // Starts the thread if it does not run yet; false if the system has none, or no descriptor, left.
  bool Started() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool IsSettled(const Regions& regions) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Ask(const Regions& regions) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // What follows runs on the thread.
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
  shm::UniqueFd socket_ ABSL_GUARDED_BY(mutex_);  // closed by the thread alone, which polls it
  bool forget_ ABSL_GUARDED_BY(mutex_) = false;   // the thread is to close the socket
  Clock::time_point next_attempt_ ABSL_GUARDED_BY(mutex_) = Clock::time_point::min();
  std::list<Waiter> waiters_ ABSL_GUARDED_BY(mutex_);
  std::deque<Job> jobs_ ABSL_GUARDED_BY(mutex_);        // to be sent
  std::optional<Job> current_ ABSL_GUARDED_BY(mutex_);  // sent, not answered
  Clock::time_point answer_by_ ABSL_GUARDED_BY(mutex_);
  Regions known_ ABSL_GUARDED_BY(mutex_);  // those of this connection that are not kUnknown
};

}  // namespace attnd::client
