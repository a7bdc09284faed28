// Memory that a server on the same host reads and writes in place.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>

namespace attnd {

// Memory from Client::AllocateBuffer. Tensors that lie in it are not sent to a server that shares it but read where
// they are, and a result whose destination lies in it is written there. It is ordinary memory for everything else, and
// for every server that does not share it. Aligned to a page, zeros at first; on huge pages from 2 MiB on where the
// system has them. Making it takes some milliseconds a MiB, so buffers are for reuse.
//
// Copies name the same memory; it is freed with the last of them, on any thread and without waiting for the server.
// That must not be before the calls that use it have ended. A call that ended early (deadline, cancellation, lost
// connection) may leave the server reading and writing for a short while: a destination that is to be used again at
// once is better allocated anew. Thread-safe.
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
