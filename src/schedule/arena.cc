#include "schedule/arena.h"

#include <new>

#include "schedule/rounding.h"

namespace attnd::schedule {

void Arena::Free::operator()(std::byte* block) const { ::operator delete[](block, std::align_val_t{kAlignment}); }

std::byte* Arena::Get(std::size_t bytes) {
  if (bytes > capacity_) {
    block_.reset();
    capacity_ = 0;
    block_.reset(static_cast<std::byte*>(::operator new[](bytes, std::align_val_t{kAlignment})));
    capacity_ = bytes;
  }
  return block_.get();
}

}  // namespace attnd::schedule
