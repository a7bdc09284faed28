#include "memory/pace.h"

#include <algorithm>

namespace attnd::memory {
namespace {

// A measurement takes at least kMeasure. One that began more than kStale ago is discarded: it spans times when nothing
// was refused, which say nothing about the present.
constexpr std::chrono::milliseconds kMeasure{100};
constexpr std::chrono::milliseconds kStale{2000};

}  // namespace

std::chrono::milliseconds Pace::Until(std::int64_t missing, std::int64_t given_back, Clock::time_point now) {
  const absl::MutexLock lock(&mutex_);
  const auto since = std::chrono::duration_cast<std::chrono::milliseconds>(now - begun_);
  if (!measuring_ || since > kStale) {
    rate_ = -1;
    measuring_ = true;
    begun_ = now;
    given_back_ = given_back;
  } else if (since >= kMeasure) {
    rate_ = static_cast<double>(given_back - given_back_) / static_cast<double>(since.count());
    begun_ = now;
    given_back_ = given_back;
  }
  if (rate_ < 0) return kUnknown;
  const auto longest = static_cast<double>(kLongest.count());
  if (static_cast<double>(missing) >= rate_ * longest) return kLongest;
  return std::max(kShortest,
                  std::chrono::milliseconds(static_cast<std::int64_t>(static_cast<double>(missing) / rate_)));
}

}  // namespace attnd::memory
