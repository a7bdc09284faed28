#include "heap/trimmer.h"

#include <algorithm>
#include <utility>

#include "heap/heap.h"

namespace attnd::heap {

std::size_t KeptMemory::Next(std::int64_t peak_bytes) {
  peaks_[next_++ % kIntervals] = peak_bytes;
  return std::max(kFloorBytes, 2 * static_cast<std::size_t>(*std::max_element(peaks_.begin(), peaks_.end())));
}

Trimmer::Trimmer(std::function<std::int64_t()> take_peak_bytes, absl::Duration interval)
    : take_peak_bytes_(std::move(take_peak_bytes)), interval_(interval) {
  if (IsInForce()) thread_ = std::thread([this] { Run(); });
}

Trimmer::~Trimmer() {
  if (!thread_.joinable()) return;
  {
    absl::MutexLock lock(&mutex_);
    ending_ = true;
  }
  thread_.join();
}

void Trimmer::Run() {
  KeptMemory kept;
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      if (mutex_.AwaitWithTimeout(absl::Condition(&ending_), interval_)) return;
    }
    GiveBack(kept.Next(take_peak_bytes_()));
  }
}

}  // namespace attnd::heap
