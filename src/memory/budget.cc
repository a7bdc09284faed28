#include "memory/budget.h"

namespace attnd::memory {

std::optional<Budget::Lease> Budget::Take(std::int64_t bytes) {
  std::int64_t used = counts_->used.load(std::memory_order_relaxed);
  do {
    if (bytes > max_bytes_ - used) return std::nullopt;
  } while (!counts_->used.compare_exchange_weak(used, used + bytes, std::memory_order_relaxed));
  RaisePeak(used + bytes);
  return Lease(counts_, bytes);
}

void Budget::RaisePeak(std::int64_t used) {
  std::int64_t peak = counts_->peak.load(std::memory_order_relaxed);
  while (peak < used && !counts_->peak.compare_exchange_weak(peak, used, std::memory_order_relaxed)) {
  }
}

std::int64_t Budget::TakePeakBytes() {
  const std::int64_t peak = counts_->peak.exchange(0, std::memory_order_relaxed);
  RaisePeak(used_bytes());
  return peak;
}

}  // namespace attnd::memory
