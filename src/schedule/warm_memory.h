// Large blocks of memory that stay warm between requests: fresh pages cost a page fault each, which for packed keys and
// values took a tenth of the whole computation.
#pragma once

#include <cstddef>
#include <memory>

namespace attnd::schedule {

struct ReturnWarmMemory {
  std::size_t bytes = 0;
  void operator()(std::byte* block) const;
};

// Given back when destroyed, on any thread.
using WarmMemory = std::unique_ptr<std::byte[], ReturnWarmMemory>;

// What the process keeps at most for later.
inline constexpr std::size_t kMaxWarmBytes = std::size_t{64} << 20;

// At least `bytes` bytes aligned to 64, contents undefined; null if there is no memory. Thread-safe.
WarmMemory TakeWarmMemory(std::size_t bytes);

// Bytes kept now.
std::size_t WarmBytes();

}  // namespace attnd::schedule
