// Key bits in the form that the kernels use.
#pragma once

#include "kernel/impl/packet.h"
#include "kernel/visible.h"

namespace attnd::kernel::ATTND_KERNEL_TAG {

// Whether key bits hide any of the keys [first, last) of a batch entry.
inline bool HidesAny(const Attention& a, std::int64_t batch, std::int64_t first, std::int64_t last) {
  const std::byte* bits = KeyBits(a, batch);
  if (bits == nullptr) return false;
  while (first < last) {
    if (first % 8 == 0 && first + 8 <= last) {
      if (static_cast<unsigned>(bits[first / 8]) != 0xffu) return true;
      first += 8;
    } else if (!KeyBit(a, batch, first++)) {
      return true;
    }
  }
  return false;
}

// Sets `keep` for the keys [key, key + keys) of a batch entry to what KeepScore takes: all bits ones for visible keys
// and zeros for hidden ones, written to `scratch` and padded to a whole packet; null if all keys are visible. Returns
// false if none is visible.
inline bool FindKept(const Attention& a, std::int64_t batch, std::int64_t key, std::int64_t keys, float* scratch,
                     const float*& keep) {
  keep = nullptr;
  if (!HidesAny(a, batch, key, key + keys)) return true;
  bool any = false;
  for (std::int64_t i = 0; i < RoundUp(keys, kWidth); ++i) {
    const bool visible = i < keys && KeyBit(a, batch, key + i);
    any = any || visible;
    const std::uint32_t bits = visible ? 0xffffffffu : 0u;
    std::memcpy(scratch + i, &bits, sizeof bits);
  }
  keep = scratch;
  return any;
}

}  // namespace attnd::kernel::ATTND_KERNEL_TAG
