// Which keys a query row sees: key starts and lengths of ragged batches, mask, window, prefix and key bits. Used by the
// schedule and the kernels.
//
// Functions are always_inline because the kernel is compiled once per instruction set, and a function that several
// builds share must not leave a symbol (cmake/AttndIsa.cmake).
#pragma once

#include <cstdint>

#include "kernel/attention.h"

namespace attnd::kernel {

// End of a batch entry's true (not padding) keys.
[[gnu::always_inline]] inline std::int64_t KeyLength(const Attention& a, std::int64_t batch) {
  return a.key_lengths == nullptr ? a.key_length : a.key_lengths[batch];
}

// Begin of a batch entry's true keys; may be after their end.
[[gnu::always_inline]] inline std::int64_t KeyStart(const Attention& a, std::int64_t batch) {
  return a.key_starts == nullptr ? 0 : a.key_starts[batch];
}

// Query rows of a batch entry that are not padding.
[[gnu::always_inline]] inline std::int64_t QueryLength(const Attention& a, std::int64_t batch) {
  return a.query_lengths == nullptr ? a.query_length : a.query_lengths[batch];
}

// Position of query row 0 of a batch entry.
[[gnu::always_inline]] inline std::int64_t QueryOffset(const Attention& a, std::int64_t batch) {
  return a.query_offsets == nullptr ? a.query_offset : a.query_offsets[batch];
}

// A batch entry's key bits; null if all keys are visible.
[[gnu::always_inline]] inline const std::byte* KeyBits(const Attention& a, std::int64_t batch) {
  return a.key_bits == nullptr ? nullptr : a.key_bits + batch * ((a.key_length + 7) / 8);
}

// Whether the key bits leave `key` visible.
[[gnu::always_inline]] inline bool KeyBit(const Attention& a, std::int64_t batch, std::int64_t key) {
  const std::byte* bits = KeyBits(a, batch);
  return bits == nullptr || (static_cast<unsigned>(bits[key / 8]) >> (key % 8) & 1u) != 0;
}

// Whether the problem has a window, a prefix or key biases.
[[gnu::always_inline]] inline bool HasWindow(const Attention& a) {
  return a.left != kAnyDistance || a.right != kAnyDistance || a.prefix_lengths != nullptr || a.key_bias != nullptr;
}

// The causal mask hides none of a batch entry's keys [0, this).
[[gnu::always_inline]] inline std::int64_t PrefixLength(const Attention& a, std::int64_t batch) {
  return a.prefix_lengths == nullptr ? 0 : a.prefix_lengths[batch];
}

// End of the keys in [0, keys) that mask and window let query row `row` of a batch entry see; they begin at
// FirstVisible. Neither bound decreases from row to row. `kWindow` = false, for problems without HasWindow, skips
// window and prefix.
template <bool kWindow = true>
[[gnu::always_inline]] inline std::int64_t VisibleKeys(const Attention& a, std::int64_t batch, std::int64_t keys,
                                                       std::int64_t row) {
  const std::int64_t not_later = QueryOffset(a, batch) + row + 1;
  std::int64_t seen = keys;
  if (a.mask == Mask::kCausal) {
    const std::int64_t prefix = kWindow ? PrefixLength(a, batch) : 0;
    const std::int64_t end = not_later > prefix ? not_later : prefix;
    seen = seen < end ? seen : end;
  }
  if constexpr (kWindow) {
    const std::int64_t end = not_later + a.right;
    seen = seen < end ? seen : end;
  }
  return seen > 0 ? seen : 0;
}

// The first key that the window lets a query row see; may be after VisibleKeys.
[[gnu::always_inline]] inline std::int64_t FirstVisible(const Attention& a, std::int64_t batch, std::int64_t row) {
  const std::int64_t first = QueryOffset(a, batch) + row - a.left;
  return first > 0 ? first : 0;
}

}  // namespace attnd::kernel
