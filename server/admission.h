// Bounds the memory of the calls in flight: beyond it a call is refused at once instead of all of them suffering.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>

#include "absl/status/statusor.h"

namespace attnd::server {

// Counts bytes against a limit. Thread-safe; its tickets may outlive it.
class Admission {
  struct Counts {
    std::atomic<std::int64_t> inflight_bytes{0};
    std::atomic<std::int64_t> peak_bytes{0};
  };

 public:
  // What an admitted call holds; gives its bytes back when destroyed. Empty by default.
  class Ticket {
   public:
    Ticket() = default;
    Ticket(Ticket&& other) noexcept : counts_(std::move(other.counts_)), bytes_(std::exchange(other.bytes_, 0)) {}
    Ticket& operator=(Ticket&& other) noexcept {
      std::swap(counts_, other.counts_);
      std::swap(bytes_, other.bytes_);
      return *this;
    }
    ~Ticket() {
      if (counts_ != nullptr) counts_->inflight_bytes.fetch_sub(bytes_, std::memory_order_relaxed);
    }

   private:
    friend class Admission;
    Ticket(std::shared_ptr<Counts> counts, std::int64_t bytes) : counts_(std::move(counts)), bytes_(bytes) {}
    std::shared_ptr<Counts> counts_;
    std::int64_t bytes_ = 0;
  };

  explicit Admission(std::int64_t max_inflight_bytes) : max_inflight_bytes_(max_inflight_bytes) {}

  // `bytes` >= 0. Errors: RESOURCE_EXHAUSTED, naming the limit.
  absl::StatusOr<Ticket> Admit(std::int64_t bytes);

  // The most bytes held at once since this was last called, or since the start. For one caller.
  std::int64_t TakePeakBytes();

  std::int64_t inflight_bytes() const { return counts_->inflight_bytes.load(std::memory_order_relaxed); }

 private:
  void RaisePeak(std::int64_t held);

  const std::int64_t max_inflight_bytes_;
  const std::shared_ptr<Counts> counts_ = std::make_shared<Counts>();  // shared with the tickets
};

}  // namespace attnd::server
