// When memory may be free again.
#pragma once

#include <chrono>
#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace attnd::memory {

// Guesses from how fast bytes came back lately. Thread-safe; asked where a request is refused, not on the way of those
// that are served.
class Pace {
 public:
  using Clock = std::chrono::steady_clock;

  static constexpr std::chrono::milliseconds kShortest{20};
  static constexpr std::chrono::milliseconds kLongest{2000};
  // Where nothing is known yet.
  static constexpr std::chrono::milliseconds kUnknown{100};

  // The time until `missing` more bytes have come back, from kShortest to kLongest. `given_back` counts the bytes that
  // have come back since the start.
  std::chrono::milliseconds Until(std::int64_t missing, std::int64_t given_back, Clock::time_point now)
      ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  absl::Mutex mutex_;
  bool measuring_ ABSL_GUARDED_BY(mutex_) = false;
  Clock::time_point begun_ ABSL_GUARDED_BY(mutex_);      // the measurement that is under way
  std::int64_t given_back_ ABSL_GUARDED_BY(mutex_) = 0;  // then
  double rate_ ABSL_GUARDED_BY(mutex_) = -1;             // bytes a millisecond, by the last one; negative if none
};

}  // namespace attnd::memory
