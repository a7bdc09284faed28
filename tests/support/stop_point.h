// Stops a thread at a hook, so that a test decides what comes first.
#pragma once

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"

namespace attnd::test {

// The first thread that calls Pass() waits there until Continue(); later ones pass. Every wait ends after twenty
// seconds with a failure. Thread-safe.
class StopPoint {
 public:
  void Pass() {
    absl::MutexLock lock(&mutex_);
    if (reached_) return;
    reached_ = true;
    EXPECT_TRUE(mutex_.AwaitWithTimeout(absl::Condition(&continued_), absl::Seconds(20))) << "nobody calls Continue()";
  }

  // Whether a thread stops here, waiting for it.
  bool Reached() {
    absl::MutexLock lock(&mutex_);
    return mutex_.AwaitWithTimeout(absl::Condition(&reached_), absl::Seconds(20));
  }

  void Continue() {
    absl::MutexLock lock(&mutex_);
    continued_ = true;
  }

 private:
  absl::Mutex mutex_;
  bool reached_ ABSL_GUARDED_BY(mutex_) = false;
  bool continued_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace attnd::test
