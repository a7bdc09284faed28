// Warm scratch memory, one per worker thread.
#pragma once

#include <cstddef>
#include <memory>

namespace attnd::schedule {

// A block of 64-byte-aligned memory that grows to the largest size requested and keeps it. Not thread-safe: each worker
// has its own.
class Arena {
 public:
  Arena() = default;
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // At least `bytes` bytes, aligned to 64, undefined contents, valid until the next call.
  std::byte* Get(std::size_t bytes);

  // Bytes held now.
  std::size_t capacity() const { return capacity_; }

 private:
  struct Free {
    void operator()(std::byte* block) const;
  };
  std::unique_ptr<std::byte[], Free> block_;
  std::size_t capacity_ = 0;
};

}  // namespace attnd::schedule
