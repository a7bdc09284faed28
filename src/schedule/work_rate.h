// How much work is done per second.
#pragma once

#include <algorithm>

namespace attnd::schedule {

// A moving average over the last seconds of thread time, weighted by time: longer work counts for more. Not
// thread-safe.
class WorkRate {
 public:
  // Work of `cost` took a thread `seconds`.
  void Add(double cost, double seconds) {
    const double kept = std::max(0.0, 1 - seconds / kMemory);
    cost_ = cost_ * kept + cost;
    seconds_ = seconds_ * kept + seconds;
  }

  // Cost that a thread computes per second; 0 while unknown.
  double per_second() const { return seconds_ < kEnough ? 0 : cost_ / seconds_; }

 private:
  static constexpr double kMemory = 4;     // seconds
  static constexpr double kEnough = 0.02;  // seconds
  double cost_ = 0;
  double seconds_ = 0;
};

}  // namespace attnd::schedule
