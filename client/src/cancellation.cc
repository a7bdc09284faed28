#include "attnd/cancellation.h"

#include <cstddef>
#include <utility>

namespace attnd {

void Cancellation::Cancel() {
  std::map<std::int64_t, std::function<void()>> calls;
  {
    absl::MutexLock lock(&mutex_);
    cancelled_ = true;
    calls.swap(calls_);
  }
  // Not under the lock: `cancel` may complete its call on this thread, and a completed call calls Remove.
  for (auto& [id, cancel] : calls) cancel();
}

bool Cancellation::cancelled() const {
  absl::MutexLock lock(&mutex_);
  return cancelled_;
}

std::int64_t Cancellation::Add(std::function<void()> cancel) {
  {
    absl::MutexLock lock(&mutex_);
    if (!cancelled_) {
      calls_.emplace(next_id_, std::move(cancel));
      return next_id_++;
    }
  }
  cancel();
  return -1;
}

void Cancellation::Remove(std::int64_t id) {
  absl::MutexLock lock(&mutex_);
  calls_.erase(id);
}

std::size_t Cancellation::calls() const {
  absl::MutexLock lock(&mutex_);
  return calls_.size();
}

}  // namespace attnd
