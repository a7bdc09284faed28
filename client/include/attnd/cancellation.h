// Cancels calls.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace attnd {

// One Cancellation may be given to any number of calls. Thread-safe.
class Cancellation {
 public:
  // Cancels all calls that use this object, including calls that start later. A second Cancel() does nothing.
  void Cancel() ABSL_LOCKS_EXCLUDED(mutex_);

  bool cancelled() const ABSL_LOCKS_EXCLUDED(mutex_);

  // For implementations of Connection: Cancel() runs `cancel`, unless Remove(id) comes first; if Cancel() was called
  // before, Add runs it at once. `cancel` may still be running when Remove returns, so it must own what it touches.
  std::int64_t Add(std::function<void()> cancel) ABSL_LOCKS_EXCLUDED(mutex_);
  void Remove(std::int64_t id) ABSL_LOCKS_EXCLUDED(mutex_);

  // How many calls Cancel() would cancel now. For tests.
  std::size_t calls() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  mutable absl::Mutex mutex_;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  std::int64_t next_id_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<std::int64_t, std::function<void()>> calls_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace attnd
