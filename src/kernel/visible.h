// Which keys a query row sees: true lengths of ragged batches, and the mask. For the schedule and the kernels alike.
//
// The kernel is compiled once per instruction set, and a function that several builds share must not leave a symbol
// (cmake/AttndIsa.cmake): hence always_inline.
#pragma once

#include <cstdint>

#include "kernel/attention.h"

namespace attnd::kernel {

// Keys of a batch entry that are not padding.
[[gnu::always_inline]] inline std::int64_t KeyLength(const Attention& a, std::int64_t batch) {
  return a.key_lengths == nullptr ? a.key_length : a.key_lengths[batch];
}

// Query rows of a batch entry that are not padding.
[[gnu::always_inline]] inline std::int64_t QueryLength(const Attention& a, std::int64_t batch) {
  return a.query_lengths == nullptr ? a.query_length : a.query_lengths[batch];
}

// Of the keys [0, keys), query row `row` sees [0, this).
[[gnu::always_inline]] inline std::int64_t VisibleKeys(const Attention& a, std::int64_t keys, std::int64_t row) {
  if (a.mask == Mask::kNone) return keys;
  const std::int64_t not_later = a.query_offset + row + 1;
  const std::int64_t seen = keys < not_later ? keys : not_later;
  return seen > 0 ? seen : 0;
}

}  // namespace attnd::kernel
