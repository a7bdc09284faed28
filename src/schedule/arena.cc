#include "schedule/arena.h"

#include <new>

namespace attnd::schedule {
namespace {

constexpr std::align_val_t kAlignment{64};

}  // namespace

void Arena::Free::operator()(std::byte* block) const { ::operator delete[](block, kAlignment); }

std::byte* Arena::Get(std::size_t bytes) {
  if (bytes > capacity_) {
    block_.reset();
    capacity_ = 0;
    block_.reset(static_cast<std::byte*>(::operator new[](bytes, kAlignment)));
    capacity_ = bytes;
  }
  return block_.get();
}

}  // namespace attnd::schedule
