// Estimates when memory will be free again.
#pragma once

#include <chrono>
#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace attnd::memory {

// Estimates from the rate at which bytes were given back recently. Thread-safe. Called only when a request is refused,
// not on the path of requests that are served.
class Pace {
 public:
  using Clock = std::chrono::steady_clock;

  static constexpr std::chrono::milliseconds kShortest{20};
  static constexpr std::chrono::milliseconds kLongest{2000};
  // Used while the rate is unknown.
  static constexpr std::chrono::milliseconds kUnknown{100};

  // The time until `missing` more bytes have been given back, from kShortest to kLongest. `given_back`: bytes given
  // back since the start.
  std::chrono::milliseconds Until(std::int64_t missing, std::int64_t given_back, Clock::time_point now)
      ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  absl::Mutex mutex_;
  bool measuring_ ABSL_GUARDED_BY(mutex_) = false;
  Clock::time_point begun_ ABSL_GUARDED_BY(mutex_);      // start of the current measurement
  std::int64_t given_back_ ABSL_GUARDED_BY(mutex_) = 0;  // at begun_
  double rate_ ABSL_GUARDED_BY(mutex_) = -1;  // bytes per millisecond in the last measurement; negative if none
};

}  // namespace attnd::memory
