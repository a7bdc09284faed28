// Runs the work of many requests on one pool of threads, fairly.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <stop_token>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "schedule/turns.h"
#include "schedule/work.h"

namespace attnd::schedule {

// The default number of threads: the CPUs that this process may run on (affinity), but at most the cgroup's CPU limit
// (v1 and v2), rounded up; at least 1.
int DefaultThreads();

// Work of up to this cost (multiply-adds: about 12 microseconds) runs on the submitting thread, because waking another
// thread would take as long as the work itself.
inline constexpr double kInlineCost = 3 << 18;

// Jobs of up to this cost (half a millisecond) do not wait for a turn.
inline constexpr double kSmallWork = kPauseCost;

// How a submitted job ended.
struct Outcome {
  // OK, CANCELLED, DEADLINE_EXCEEDED, or RESOURCE_EXHAUSTED (no memory, or the queue was too long).
  absl::Status status;
  absl::Duration queued;    // from Submit until its first item began
  absl::Duration computed;  // from then until its last item ended
  // Set if the queue was too long, otherwise 0: how long the job would have waited (with a deadline: until it would
  // have been done), and in how much time the queue may be short enough.
  absl::Duration estimate = absl::ZeroDuration();
  absl::Duration come_back = absl::ZeroDuration();
};

// State and counters of the queue.
struct QueueUse {
  std::int64_t waiting = 0;  // jobs, now
  std::int64_t refused = 0;  // jobs refused at once: too much work was before them
  std::int64_t expired = 0;  // jobs that waited until it was too late, with nothing computed
};

// Lets the submitter cancel the jobs that were submitted with it. Thread-safe; cheap to copy.
class CancelToken {
 public:
  // Jobs with no running item are destroyed, and their `done` called, before this returns; do not call it while holding
  // a lock that a `done` takes. For other jobs, no further item begins.
  void Cancel() { source_.request_stop(); }
  bool cancelled() const { return source_.stop_requested(); }

 private:
  friend class Scheduler;
  std::stop_source source_;
};

using NowFunction = Clock::time_point (*)();

struct SubmitOptions {
  Clock::time_point deadline = Clock::time_point::max();  // max(): none
  const void* caller = nullptr;                           // who submits it; only compared with unfinished jobs
  CancelToken cancel;
};

// Computes few jobs at a time, so that each is done soon: as many as keep two items per thread ready. The others wait.
// Callers take turns (Turns), and within a caller the job with the earliest deadline is first; a job that is not done
// at the end of its caller's turn waits for the next turn. Small jobs (kSmallWork) do not wait for a turn. Among the
// jobs being computed, the next item comes from the job that has received least since it began (fair queueing by cost);
// within a job, the most costly ready item is first. So a small job beside a huge one waits for at most one item per
// thread, and if that item is long, only until it pauses: then short items of other jobs run on its thread.
//
// From the cost of everything before a job and the cost computed per second lately, the scheduler estimates when the
// job would be done. If that is after its deadline (without a deadline: if it would wait longer than `max_wait`), the
// job is refused on submission, unless next to nothing is before it. A job that has not begun when it is too late never
// begins.
//
// Deadlines and cancellation are checked between items and in pauses; a waiting job is cancelled at once. The scheduler
// holds at most one item of a job besides those that run.
//
// Thread-safe. No call blocks on a job, and no item waits for another inside the pool. The destructor waits for all
// submitted jobs.
class Scheduler {
 public:
  // `threads` >= 1. Tests pass a clock of their own.
  explicit Scheduler(int threads, Clock::duration max_wait = Clock::duration::max(), NowFunction now = &Clock::now);
  ~Scheduler();
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  int threads() const;
  QueueUse GetQueueUse() const;

  // Runs `work`, destroys it, and then calls `done` exactly once, so the work no longer uses what `done` releases or
  // hands over. If the job is cheap (kInlineCost) or fails at once (refused, already cancelled, no memory), `done` runs
  // on the calling thread before Submit returns. Otherwise it runs on a pool thread, on the thread that cancels, or, if
  // the job becomes too late while it waits, possibly on a thread that submits another job; it must not block. It must
  // not throw. If an item or the scheduler runs out of memory (std::bad_alloc), no further item of the job begins, and
  // `done` gets RESOURCE_EXHAUSTED.
  void Submit(std::unique_ptr<Work> work, SubmitOptions options, std::function<void(const Outcome&)> done);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace attnd::schedule
