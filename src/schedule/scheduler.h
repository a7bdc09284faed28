// Runs many requests' works on one pool of threads, fairly.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <stop_token>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "schedule/work.h"

namespace attnd::schedule {

// Threads to use when none are asked for: the CPUs that this process may run on (affinity), but no more than the
// cgroup's CPU limit (v1 and v2), rounded up; at least 1.
int DefaultThreads();

// What deadlines and durations go by: never set, unlike the time of day.
using Clock = std::chrono::steady_clock;

// Work of up to this cost (multiply-adds: some 12 microseconds) runs on the submitting thread: waking another would
// take as long as the work itself.
inline constexpr double kInlineCost = 3 << 18;

// A submitted work's outcome.
struct Outcome {
  absl::Status status;      // OK, CANCELLED, DEADLINE_EXCEEDED, or RESOURCE_EXHAUSTED where there was no memory
  absl::Duration queued;    // from Submit until its first item began
  absl::Duration computed;  // from then until its last item ended
};

// Lets the submitter take back the works that it was given with. Thread-safe; cheap to copy.
class CancelToken {
 public:
  // Works of which nothing runs are destroyed, and their `done` called, before this returns; call it without a lock
  // that a `done` takes. Of the others nothing more is begun.
  void Cancel() { source_.request_stop(); }
  bool cancelled() const { return source_.stop_requested(); }

 private:
  friend class Scheduler;
  std::stop_source source_;
};

struct SubmitOptions {
  Clock::time_point deadline = Clock::time_point::max();  // max(): none
  CancelToken cancel;
};

// Interleaves the items of all submitted works: the next item always comes from the work that has been given least
// compute so far (fair queueing by cost), and within a work the most costly ready item goes first. So a small request
// beside a huge one waits for no more than one item per thread, and where that is long until it pauses, when short
// items of others run on its thread. Deadlines and cancellation are seen between items and in pauses, and the
// cancellation of a work that waits at once. It holds at most one item of a work beside those that run.
//
// Thread-safe. No call blocks on a work, and no item ever waits for another inside the pool. The destructor waits for
// every submitted work.
class Scheduler {
 public:
  // `threads` >= 1.
  explicit Scheduler(int threads);
  ~Scheduler();
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  int threads() const;

  // Runs `work`, destroys it, and then calls `done` exactly once: what `done` gives back or hands over is in no work's
  // use any more. A work whose cost is below a small threshold may run, and `done` be called, on the calling thread
  // before Submit returns; otherwise `done` runs on a pool thread, or on the one that cancels, and must not block. It
  // must not throw. Where an item or the scheduler has no memory (std::bad_alloc), nothing more of the work is begun,
  // and `done` gets RESOURCE_EXHAUSTED.
  void Submit(std::unique_ptr<Work> work, SubmitOptions options, std::function<void(const Outcome&)> done);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace attnd::schedule
