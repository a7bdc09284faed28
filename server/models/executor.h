// Threads for calls that may block or take long, so that they never run on gRPC's.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace attnd::server {

// Runs jobs in the order of their arrival. What waits is bounded by the memory it holds and not by a count. Results
// that their callers have not read yet are bounded too: while they hold that much, no further job starts. Thread-safe.
class Executor {
 public:
  // `max_bytes`, of each: what waits, and the results that are being sent.
  Executor(int threads, std::int64_t max_bytes);
  // All jobs must have run or been dropped.
  ~Executor();
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  // Queues a job that holds `bytes` while it waits, and must not throw. Its ticket, for Drop; nullopt if it would
  // exceed max_bytes. Without memory for the queue it throws std::bad_alloc, and the job is not queued.
  std::optional<std::uint64_t> Submit(std::int64_t bytes, std::function<void()> job);

  // Takes a job out of the queue: true if it has not started, and then it never will. Destroys it before returning.
  bool Drop(std::uint64_t ticket);

  // A result of this many bytes waits to be sent; Release when it has been sent.
  void Hold(std::int64_t result_bytes);
  void Release(std::int64_t result_bytes);

  // Whether jobs wait or run, or results wait to be sent.
  bool busy() const;

  std::int64_t max_bytes() const { return max_bytes_; }

 private:
  struct Job {
    std::int64_t bytes = 0;
    std::function<void()> run;
  };

  void Work();
  void End();
  bool WorkersHaveSomethingToDo() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return stopping_ || (!waiting_.empty() && result_bytes_ < max_bytes_);
  }

  const std::int64_t max_bytes_;
  mutable absl::Mutex mutex_;
  std::map<std::uint64_t, Job> waiting_ ABSL_GUARDED_BY(mutex_);  // by arrival
  std::uint64_t last_ticket_ ABSL_GUARDED_BY(mutex_) = 0;
  std::int64_t waiting_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  int running_ ABSL_GUARDED_BY(mutex_) = 0;
  std::int64_t result_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace attnd::server
