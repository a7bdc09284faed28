// Memory for a result, which gRPC sends without a copy.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "grpcpp/support/slice.h"
#include "memory/ledger.h"

namespace attnd::server {

// Heap memory, 64-byte aligned, contents undefined, and its reservation. Empty by default. Thread-compatible.
class Buffer {
 public:
  // A buffer of `size` bytes; size 0 gives an empty one. Errors: RESOURCE_EXHAUSTED if the system has no memory.
  static absl::StatusOr<Buffer> Create(std::size_t size);

  Buffer() = default;
  Buffer(Buffer&& other) noexcept
      : lease_(std::move(other.lease_)), bytes_(std::move(other.bytes_)), size_(std::exchange(other.size_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    bytes_ = std::move(other.bytes_);
    size_ = std::exchange(other.size_, 0);
    lease_ = std::move(other.lease_);
    return *this;
  }

  // Keeps the reservation as long as the bytes, also when these move into a slice. An empty buffer must get an empty
  // reservation.
  void Hold(memory::Ticket lease) { lease_ = std::move(lease); }

  std::byte* data() const { return bytes_.get(); }
  std::size_t size() const { return size_; }

  // A slice of the same bytes that owns them and the reservation: gRPC drops it when the bytes are sent, or the call is
  // lost.
  grpc::Slice ToSlice() &&;

 private:
  struct Free {
    void operator()(std::byte* bytes) const { std::free(bytes); }
  };
  Buffer(std::byte* bytes, std::size_t size) : bytes_(bytes), size_(size) {}

  memory::Ticket lease_;  // destroyed after the bytes
  std::unique_ptr<std::byte, Free> bytes_;
  std::size_t size_ = 0;
};

}  // namespace attnd::server
