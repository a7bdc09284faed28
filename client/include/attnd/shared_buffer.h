// Memory that a server on the same host reads and writes in place.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>

namespace attnd {

// Memory from Client::AllocateBuffer. A server that shares it reads tensors in it in place, and writes a result there
// if its destination is in it: nothing is sent. For everything else, and for every other server, it is ordinary memory.
// Page-aligned and initially zero; on huge pages from 2 MiB if the system has them. Allocating it takes some
// milliseconds for each MiB, so reuse buffers.
//
// Copies refer to the same memory. It is freed with the last copy, on any thread and without waiting for the server. Do
// not free it before the calls that use it have ended. After a call that ended early (deadline, cancellation, lost
// connection) the server may still read and write for a short while: allocate a new destination instead of reusing that
// one at once. Thread-safe.
class SharedBuffer {
 public:
  SharedBuffer() = default;
  // For implementations of Connection: `memory` owns `size` bytes.
  SharedBuffer(std::shared_ptr<void> memory, std::size_t size) : memory_(std::move(memory)), size_(size) {}

  void* data() const { return memory_.get(); }
  std::size_t size() const { return size_; }
  // For TensorView::owner.
  const std::shared_ptr<void>& owner() const { return memory_; }

 private:
  std::shared_ptr<void> memory_;
  std::size_t size_ = 0;
};

}  // namespace attnd
