// Memory whose neighbours may not be touched: the page after it, or the page before it, is protected.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "gtest/gtest.h"

namespace attnd::kernel {

enum class Guard { kAfter, kBefore };

// `size` bytes, each 0xff: NaN to whoever reads what was never written. Ends at a protected page, or begins after one.
// A size that is no multiple of `alignment` leaves up to alignment - 1 bytes before the page after it.
class Guarded {
 public:
  Guarded(std::size_t size, Guard guard, std::size_t alignment = 1) : size_(size) {
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    const std::size_t rounded = (size + alignment - 1) / alignment * alignment;
    const std::size_t inner = (rounded + page - 1) / page * page;
    mapped_ = inner + 2 * page;
    block_ = mmap(nullptr, mapped_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (block_ == MAP_FAILED || mprotect(At(page), inner, PROT_READ | PROT_WRITE) != 0) {
      ADD_FAILURE() << "no memory";
      return;
    }
    std::memset(At(page), 0xff, inner);
    data_ = guard == Guard::kAfter ? At(page + inner - rounded) : At(page);
  }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;
  Guarded(Guarded&&) = delete;
  ~Guarded() {
    if (block_ != MAP_FAILED) munmap(block_, mapped_);
  }

  std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }

 private:
  std::byte* At(std::size_t offset) const { return static_cast<std::byte*>(block_) + offset; }

  const std::size_t size_;
  std::size_t mapped_ = 0;
  void* block_ = nullptr;
  std::byte* data_ = nullptr;
};

}  // namespace attnd::kernel
