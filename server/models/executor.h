// Threads for calls that may block or take long, so that they never run on gRPC's.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace attnd::server {

// Runs jobs in the order of their arrival. What waits is bounded by the memory that each job has been given from the
// ledger before it comes here, and not by a count. Thread-safe.
class Executor {
 public:
  explicit Executor(int threads);
  // All jobs must have run or been dropped.
  ~Executor();
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  // Queues a job, which must not throw. Its number, for Drop. Without memory for the queue it throws std::bad_alloc,
  // and the job is not queued.
  std::uint64_t Submit(std::function<void()> job);

  // Takes a job out of the queue: true if it has not started, and then it never will. Destroys it before returning.
  bool Drop(std::uint64_t number);

  // Whether jobs wait or run.
  bool busy() const;

 private:
  void Work();
  void End();
  bool WorkersHaveSomethingToDo() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return stopping_ || !waiting_.empty(); }

  mutable absl::Mutex mutex_;
  std::map<std::uint64_t, std::function<void()>> waiting_ ABSL_GUARDED_BY(mutex_);  // by arrival
  std::uint64_t last_number_ ABSL_GUARDED_BY(mutex_) = 0;
  int running_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace attnd::server
