// A bounded number of bytes that several users draw from.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>

namespace attnd::memory {

// Thread-safe. Leases may outlive their budget.
class Budget {
  struct Counts {
    std::atomic<std::int64_t> used{0};
    std::atomic<std::int64_t> peak{0};
  };

 public:
  // Bytes taken from a budget; gives them back when destroyed. Empty by default. Thread-compatible.
  class Lease {
   public:
    Lease() = default;
    Lease(Lease&& other) noexcept : counts_(std::move(other.counts_)), bytes_(std::exchange(other.bytes_, 0)) {}
    Lease& operator=(Lease&& other) noexcept {
      std::swap(counts_, other.counts_);
      std::swap(bytes_, other.bytes_);
      return *this;
    }
    ~Lease() {
      if (counts_ != nullptr) counts_->used.fetch_sub(bytes_, std::memory_order_relaxed);
    }

   private:
    friend class Budget;
    Lease(std::shared_ptr<Counts> counts, std::int64_t bytes) : counts_(std::move(counts)), bytes_(bytes) {}
    std::shared_ptr<Counts> counts_;
    std::int64_t bytes_ = 0;
  };

  // `max_bytes` >= 0.
  explicit Budget(std::int64_t max_bytes) : max_bytes_(max_bytes) {}

  // Takes `bytes` >= 0, or nothing and returns nullopt if fewer are left.
  std::optional<Lease> Take(std::int64_t bytes);

  std::int64_t max_bytes() const { return max_bytes_; }

  // Bytes that leases hold now.
  std::int64_t used_bytes() const { return counts_->used.load(std::memory_order_relaxed); }

  // The most bytes held at once since this was last called, or since the start. What is held now counts for the next
  // call too. For one caller.
  std::int64_t TakePeakBytes();

 private:
  void RaisePeak(std::int64_t used);

  const std::int64_t max_bytes_;
  const std::shared_ptr<Counts> counts_ = std::make_shared<Counts>();  // shared with the leases
};

}  // namespace attnd::memory
