#include "counted_new.h"

#include <malloc.h>

#include <atomic>
#include <cstdlib>
#include <new>

namespace attnd::model {
namespace {

std::atomic<std::int64_t> live{0};
std::atomic<std::int64_t> peak{0};

void* Counted(void* block) {
  if (block == nullptr) std::abort();
  const std::int64_t now = live.fetch_add(static_cast<std::int64_t>(malloc_usable_size(block))) +
                           static_cast<std::int64_t>(malloc_usable_size(block));
  std::int64_t most = peak.load();
  while (most < now && !peak.compare_exchange_weak(most, now)) {
  }
  return block;
}

void Discounted(void* block) {
  if (block != nullptr) live.fetch_sub(static_cast<std::int64_t>(malloc_usable_size(block)));
  std::free(block);
}

}  // namespace

std::int64_t LiveBytes() { return live.load(); }
std::int64_t PeakBytes() { return peak.load(); }
void ResetPeak() { peak.store(live.load()); }

}  // namespace attnd::model

void* operator new(std::size_t size) { return attnd::model::Counted(std::malloc(size)); }
void* operator new[](std::size_t size) { return attnd::model::Counted(std::malloc(size)); }
void operator delete(void* block) noexcept { attnd::model::Discounted(block); }
void operator delete[](void* block) noexcept { attnd::model::Discounted(block); }
void operator delete(void* block, std::size_t) noexcept { attnd::model::Discounted(block); }
void operator delete[](void* block, std::size_t) noexcept { attnd::model::Discounted(block); }
