// Warm memory for replies: a fresh page costs more than the bytes that are written to it.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "grpcpp/support/slice.h"

namespace attnd::server {

class BufferPool;

// A piece of a pool's memory, 64-byte aligned, contents undefined. Goes back to the pool when destroyed, wherever that
// happens; it keeps the pool's memory alive, so it may outlive the BufferPool. Empty by default.
class Buffer {
 public:
  Buffer() = default;
  Buffer(Buffer&& other) noexcept
      : block_(std::exchange(other.block_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(block_, other.block_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~Buffer() { Release(block_); }

  std::byte* data() const;
  std::size_t size() const { return size_; }

  // A slice of the same bytes that owns them.
  grpc::Slice ToSlice() &&;

 private:
  friend class BufferPool;
  struct Block;
  Buffer(Block* block, std::size_t size) : block_(block), size_(size) {}
  static void Release(Block* block);

  Block* block_ = nullptr;
  std::size_t size_ = 0;
};

// Keeps up to `max_idle_bytes` of released memory, in blocks of sizes that differ by at most a quarter, for reuse.
// Thread-safe.
class BufferPool {
 public:
  explicit BufferPool(std::size_t max_idle_bytes);

  // A buffer of `size` bytes; size 0 gives an empty one. Errors: RESOURCE_EXHAUSTED if the system has no memory.
  absl::StatusOr<Buffer> Get(std::size_t size);

  // Bytes kept for reuse now.
  std::size_t idle_bytes() const;

 private:
  friend class Buffer;
  class Shelves;
  std::shared_ptr<Shelves> shelves_;
};

}  // namespace attnd::server
