#include "schedule/warm_memory.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <map>
#include <new>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace attnd::schedule {
namespace {

// Blocks are whole huge pages, where the system gives them: fewer faults, and fewer misses in the table of pages.
constexpr std::size_t kPage = std::size_t{2} << 20;

std::byte* NewBlock(std::size_t bytes) {
  auto* block = static_cast<std::byte*>(::operator new[](bytes, std::align_val_t{kPage}, std::nothrow));
#if defined(__linux__)
  if (block != nullptr) madvise(block, bytes, MADV_HUGEPAGE);
#endif
  return block;
}

void DeleteBlock(std::byte* block) { ::operator delete[](block, std::align_val_t{kPage}); }

class Shelf {
 public:
  // The smallest kept block that fits and is not four times too large; null if there is none.
  std::byte* Take(std::size_t& bytes) {
    absl::MutexLock lock(&mutex_);
    const auto found = blocks_.lower_bound(bytes);
    if (found == blocks_.end() || found->first / 4 > bytes) return nullptr;
    std::byte* block = found->second;
    bytes = found->first;
    kept_ -= bytes;
    blocks_.erase(found);
    return block;
  }

  // False if there is no room.
  bool Put(std::byte* block, std::size_t bytes) {
    absl::MutexLock lock(&mutex_);
    if (bytes > kMaxWarmBytes - kept_) return false;
    kept_ += bytes;
    blocks_.emplace(bytes, block);
    return true;
  }

  std::size_t kept() {
    absl::MutexLock lock(&mutex_);
    return kept_;
  }

 private:
  absl::Mutex mutex_;
  std::multimap<std::size_t, std::byte*> blocks_ ABSL_GUARDED_BY(mutex_);
  std::size_t kept_ ABSL_GUARDED_BY(mutex_) = 0;
};

// Never destroyed: works may end while the process does.
Shelf& TheShelf() {
  static auto* const shelf = new Shelf;
  return *shelf;
}

}  // namespace

void ReturnWarmMemory::operator()(std::byte* block) const {
  if (!TheShelf().Put(block, bytes)) DeleteBlock(block);
}

WarmMemory TakeWarmMemory(std::size_t bytes) {
  if (bytes > std::numeric_limits<std::size_t>::max() - kPage) return nullptr;
  std::size_t size = std::max<std::size_t>(1, (bytes + kPage - 1) / kPage) * kPage;
  std::byte* block = TheShelf().Take(size);
  if (block == nullptr) block = NewBlock(size);
  return WarmMemory(block, ReturnWarmMemory{size});
}

std::size_t WarmBytes() { return TheShelf().kept(); }

}  // namespace attnd::schedule
