// Threads for calls that may block or take long, so that these never run on gRPC's threads.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace attnd::server {

// Runs jobs in the order of their arrival. The queue is bounded not by a count, but by the memory that each job has
// reserved in the ledger before it is submitted. Thread-safe.
class Executor {
 public:
  explicit Executor(int threads);
  // All jobs must have run or been dropped.
  ~Executor();
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  // Queues a job, which must not throw. Returns its number, for Drop. If there is no memory for the queue, throws
  // std::bad_alloc, and the job is not queued.
  std::uint64_t Submit(std::function<void()> job);

  // Removes a job from the queue and destroys it. Returns false if the job has started.
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
