#include "heap/heap.h"

#if ATTND_TCMALLOC
#include <dlfcn.h>
#include <gperftools/malloc_extension.h>
#include <gperftools/tcmalloc.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <new>

#include "absl/strings/str_cat.h"
#include "memory/huge_pages.h"
#endif

namespace attnd::heap {

#if ATTND_TCMALLOC

namespace {

using memory::kHugePageBytes;

// Address space reserved at a time. Memory is used only when it is touched, except in the accounting of a system that
// refuses to overcommit (vm.overcommit_memory = 2).
constexpr std::size_t kReservedBytes = std::size_t{256} << 20;

std::size_t RoundUp(std::size_t value, std::size_t unit) { return (value + unit - 1) / unit * unit; }

// Where tcmalloc gets its memory. tcmalloc calls it under its own lock and never returns memory to it: it tells the
// system which pages it does not need (MADV_DONTNEED) and reuses the addresses.
class HugePageSource final : public SysAllocator {
 public:
  void* Alloc(std::size_t size, std::size_t* actual_size, std::size_t alignment) override {
    if (alignment > kHugePageBytes || size > std::numeric_limits<std::size_t>::max() / 2) return nullptr;
    size = RoundUp(size, kHugePageBytes);
    if (size > left_ && !Reserve(size)) return nullptr;
    std::byte* const begin = next_;
    next_ += size;
    left_ -= size;
    if (actual_size != nullptr) *actual_size = size;
    return begin;
  }

 private:
  bool Reserve(std::size_t size) {
    const std::size_t reserved = std::max(size, kReservedBytes);
    // If there is no address space for a whole reservation, as with `ulimit -v`, the requested size may still fit.
    return Map(reserved) || Map(size);
  }

  bool Map(std::size_t size) {
    void* const mapping =
        mmap(nullptr, size + kHugePageBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapping == MAP_FAILED) return false;
    const std::size_t past = reinterpret_cast<std::uintptr_t>(mapping) % kHugePageBytes;
    next_ = static_cast<std::byte*>(mapping) + (past == 0 ? 0 : kHugePageBytes - past);
    left_ = size;
    // The heap also works without huge pages; attnd reports their absence (server/app/main.cc).
    madvise(next_, left_, MADV_HUGEPAGE);
    return true;
  }

  std::byte* next_ = nullptr;
  std::size_t left_ = 0;
};

std::size_t Property(const char* name) {
  std::size_t value = 0;
  MallocExtension::instance()->GetNumericProperty(name, &value);
  return value;
}

}  // namespace

void Configure() {
  // Lives as long as the process, and must not be allocated from the heap that it feeds.
  alignas(HugePageSource) static std::byte memory[sizeof(HugePageSource)];
  MallocExtension::instance()->SetSystemAllocator(new (memory) HugePageSource);
  // By default, tcmalloc makes a system call every few freed pages, and the next message faults those pages in again.
  MallocExtension::instance()->SetMemoryReleaseRate(0);
}

void GiveBack(std::size_t keep) {
  const std::size_t free_pages = Property("tcmalloc.pageheap_free_bytes");
  if (free_pages > keep) MallocExtension::instance()->ReleaseToSystem(free_pages - keep);
}

Usage GetUsage() {
  Usage usage;
  usage.in_use = Property("generic.current_allocated_bytes");
  usage.thread_caches = Property("tcmalloc.current_total_thread_cache_bytes");
  usage.kept = Property("tcmalloc.pageheap_free_bytes") + Property("tcmalloc.central_cache_free_bytes") +
               Property("tcmalloc.transfer_cache_free_bytes") + usage.thread_caches;
  return usage;
}

bool IsInForce() {
  const auto shared_malloc = reinterpret_cast<void* (*)(std::size_t)>(dlsym(RTLD_DEFAULT, "malloc"));
  const auto shared_free = reinterpret_cast<void (*)(void*)>(dlsym(RTLD_DEFAULT, "free"));
  if (shared_malloc == nullptr || shared_free == nullptr) return false;
  void* const block = shared_malloc(1 << 20);
  const bool owned = MallocExtension::instance()->GetOwnership(block) == MallocExtension::kOwned;
  shared_free(block);
  return owned;
}

std::string Name() {
  int major = 0, minor = 0;
  const char* patch = "";
  tc_version(&major, &minor, &patch);
  return absl::StrCat("tcmalloc ", major, ".", minor, patch);
}

#else

void Configure() {}
void GiveBack(std::size_t) {}
Usage GetUsage() { return {}; }
bool IsInForce() { return false; }
std::string Name() { return "libc"; }

#endif

}  // namespace attnd::heap
