// Counts the bytes of messages that have arrived and are still held.
#pragma once

#include <atomic>
#include <cstdint>
#include <utility>

namespace attnd::server {

// Counts its bytes as long as it lives. Different objects may be used from different threads.
class ReceivedBytes {
 public:
  // Bytes counted by all objects of this process.
  static std::int64_t Total() { return total_.load(std::memory_order_relaxed); }

  ReceivedBytes() = default;
  explicit ReceivedBytes(std::int64_t bytes) : bytes_(bytes) { total_.fetch_add(bytes, std::memory_order_relaxed); }
  ReceivedBytes(ReceivedBytes&& other) noexcept : bytes_(std::exchange(other.bytes_, 0)) {}
  ReceivedBytes& operator=(ReceivedBytes&& other) noexcept {
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~ReceivedBytes() { total_.fetch_sub(bytes_, std::memory_order_relaxed); }

 private:
  inline static std::atomic<std::int64_t> total_{0};
  std::int64_t bytes_ = 0;
};

}  // namespace attnd::server
