// Ends calls early.
#pragma once

#include <cstdint>
#include <functional>
#include <map>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace attnd {

// One Cancellation may be given to any number of calls. Thread-safe.
class Cancellation {
 public:
  // Ends every call that carries this, those made later included. The second time does nothing.
  void Cancel() ABSL_LOCKS_EXCLUDED(mutex_);

  bool cancelled() const ABSL_LOCKS_EXCLUDED(mutex_);

  // For implementations of Connection: `cancel` runs at Cancel(), or now if that was before, unless the id returned is
  // removed first. It may still run while Remove returns, so it must own what it touches.
  std::int64_t Add(std::function<void()> cancel) ABSL_LOCKS_EXCLUDED(mutex_);
  void Remove(std::int64_t id) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  mutable absl::Mutex mutex_;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  std::int64_t next_id_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<std::int64_t, std::function<void()>> calls_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace attnd
