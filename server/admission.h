// Bounds the memory of the calls in flight: beyond it a call is refused at once instead of all of them suffering.
#pragma once

#include <atomic>
#include <cstdint>
#include <utility>

#include "absl/status/statusor.h"

namespace attnd::server {

// Counts bytes against a limit. Thread-safe; must outlive its tickets.
class Admission {
 public:
  // What an admitted call holds; gives its bytes back when destroyed. Empty by default.
  class Ticket {
   public:
    Ticket() = default;
    Ticket(Ticket&& other) noexcept
        : admission_(std::exchange(other.admission_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
    Ticket& operator=(Ticket&& other) noexcept {
      std::swap(admission_, other.admission_);
      std::swap(bytes_, other.bytes_);
      return *this;
    }
    ~Ticket() {
      if (admission_ != nullptr) admission_->inflight_bytes_.fetch_sub(bytes_, std::memory_order_relaxed);
    }

   private:
    friend class Admission;
    Ticket(Admission* admission, std::int64_t bytes) : admission_(admission), bytes_(bytes) {}
    Admission* admission_ = nullptr;
    std::int64_t bytes_ = 0;
  };

  explicit Admission(std::int64_t max_inflight_bytes) : max_inflight_bytes_(max_inflight_bytes) {}

  // `bytes` >= 0. Errors: RESOURCE_EXHAUSTED, naming the limit.
  absl::StatusOr<Ticket> Admit(std::int64_t bytes);

  // The most bytes held at once since this was last called, or since the start. For one caller.
  std::int64_t TakePeakBytes();

  std::int64_t inflight_bytes() const { return inflight_bytes_.load(std::memory_order_relaxed); }

 private:
  const std::int64_t max_inflight_bytes_;
  std::atomic<std::int64_t> inflight_bytes_{0};
  std::atomic<std::int64_t> peak_bytes_{0};
};

}  // namespace attnd::server
