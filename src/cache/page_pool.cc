#include "cache/page_pool.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "memory/huge_pages.h"
#include "reservation/page_bytes.h"

namespace attnd::cache {
namespace {

// Maps address space that begins at a multiple of kHugePageBytes; null if there is none.
std::byte* MapAligned(std::size_t bytes) {
  const std::size_t more = bytes + memory::kHugePageBytes;
  void* const mapped = mmap(nullptr, more, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  auto* const begin = static_cast<std::byte*>(mapped);
  const std::size_t before =
      (memory::kHugePageBytes - reinterpret_cast<std::uintptr_t>(begin) % memory::kHugePageBytes) %
      memory::kHugePageBytes;
  if (before > 0) munmap(begin, before);
  munmap(begin + before + bytes, more - before - bytes);
  return begin + before;
}

}  // namespace

absl::StatusOr<std::unique_ptr<PagePool>> PagePool::Create(std::int64_t page_bytes, std::int64_t pages) {
  const std::optional<std::int64_t> bytes = reservation::PoolBytes(page_bytes, pages);
  std::byte* memory = nullptr;
  if (bytes.has_value()) memory = MapAligned(static_cast<std::size_t>(*bytes));
  if (memory == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the system has no room for ", pages, " pages of ", page_bytes, " bytes"));
  }
  const auto mapped = static_cast<std::size_t>(*bytes);
  if (mapped >= memory::kHugePageBytes) madvise(memory, mapped, MADV_HUGEPAGE);
  std::unique_ptr<PagePool> pool(new (std::nothrow) PagePool(memory, mapped, page_bytes, pages));
  if (pool == nullptr) {
    munmap(memory, mapped);
    return absl::ResourceExhaustedError("the system has no memory left");
  }
  return pool;
}

PagePool::~PagePool() { munmap(memory_, mapped_); }

std::byte* PagePool::Take() {
  std::int64_t page;
  if (!free_.empty()) {
    page = free_.back();
    free_.pop_back();
  } else {
    if (fresh_ == pages_) return nullptr;
    if (free_.capacity() < uses_.size() + 1) free_.reserve(std::max<std::size_t>(16, 2 * uses_.size()));
    uses_.emplace_back();
    page = fresh_++;
  }
  uses_[static_cast<std::size_t>(page)].readers = 1;
  return memory_ + page * page_bytes_;
}

void PagePool::RemoveReader(const std::byte* page) {
  --UseOf(page).readers;
  FreeIfUnused(page);
}

void PagePool::AddKeeper(const std::byte* page, std::int64_t rows) {
  Use& use = UseOf(page);
  ++use.keepers;
  use.kept_rows = std::max(use.kept_rows, rows);
}

void PagePool::RemoveKeeper(const std::byte* page) {
  Use& use = UseOf(page);
  if (--use.keepers == 0) use.kept_rows = 0;
  FreeIfUnused(page);
}

void PagePool::FreeIfUnused(const std::byte* page) {
  const Use& use = UseOf(page);
  if (use.readers == 0 && use.keepers == 0) free_.push_back(static_cast<std::int64_t>(IndexOf(page)));
}

}  // namespace attnd::cache
