// Runs many requests' works on one pool of threads, fairly.
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

// Threads to use when none are asked for: the CPUs that this process may run on (affinity), but no more than the
// cgroup's CPU limit (v1 and v2), rounded up; at least 1.
int DefaultThreads();

// Work of up to this cost (multiply-adds: some 12 microseconds) runs on the submitting thread: waking another would
// take as long as the work itself.
inline constexpr double kInlineCost = 3 << 18;

// Work of up to this cost (half a millisecond) waits for no turn.
inline constexpr double kSmallWork = kPauseCost;

// A submitted work's outcome.
struct Outcome {
  // OK, CANCELLED, DEADLINE_EXCEEDED, or RESOURCE_EXHAUSTED: where there was no memory, or where the queue was too
  // long.
  absl::Status status;
  absl::Duration queued;    // from Submit until its first item began
  absl::Duration computed;  // from then until its last item ended
  // Where the queue was too long, otherwise 0: how long the work would have waited (with a deadline: until it would
  // have been done), and when the queue may be short enough.
  absl::Duration estimate = absl::ZeroDuration();
  absl::Duration come_back = absl::ZeroDuration();
};

// What the queue has done.
struct QueueUse {
  std::int64_t waiting = 0;  // works, now
  std::int64_t refused = 0;  // works, at once: too much stood before them
  std::int64_t expired = 0;  // works that waited in vain, of which nothing was computed
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
  const void* caller = nullptr;                           // whose it is; only compared, with works that are not done
  CancelToken cancel;
};

// Computes few works at a time, so that each is done soon: as many as keep two items a thread ready. The others wait:
// callers take turns (Turns), and of one caller's works the one with the earliest deadline goes first; a work that is
// not done at the end of its caller's turn waits for the next. Small works (kSmallWork) wait for no turn. Among the
// works that are computed the next item comes from the one that has been given least since it began (fair queueing by
// cost), and within a work the most costly ready item goes first. So a small work beside a huge one waits for no more
// than one item per thread, and where that is long until it pauses, when short items of others run on its thread.
//
// From the cost of all that stands before a work, and the cost that was computed in a second lately, the scheduler
// knows when that would be done. If its deadline is before then, or, without one, if it would wait for longer than
// `max_wait`, it is refused when it comes, unless next to nothing stands before it. A work that was not begun when it
// was too late is never begun.
//
// Deadlines and cancellation are seen between items and in pauses, and the cancellation of a work that waits at once.
// It holds at most one item of a work beside those that run.
//
// Thread-safe. No call blocks on a work, and no item ever waits for another inside the pool. The destructor waits for
// every submitted work.
class Scheduler {
 public:
  // `threads` >= 1.
  explicit Scheduler(int threads, Clock::duration max_wait = Clock::duration::max());
  ~Scheduler();
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  int threads() const;
  QueueUse GetQueueUse() const;

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
