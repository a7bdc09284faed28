// The biases of a block of query rows and keys as one vector: row r's biases over the keys begin at row_zero - r.
#pragma once

#include "kernel/impl/packet.h"
#include "kernel/visible.h"

namespace attnd::kernel::ATTND_KERNEL_TAG {

// Most floats that BiasSlice writes for a block.
ATTND_INLINE constexpr std::int64_t BiasScratch(std::int64_t rows, std::int64_t keys) { return rows + keys; }

ATTND_INLINE float SlopeAt(const float* slopes, std::int64_t head) { return slopes == nullptr ? 0.0f : slopes[head]; }

// Writes the biases of the offsets high, high - 1, ..., high - count + 1, without the head's constant, to `to`.
inline void FillBias(const BiasView& bias, std::int64_t head, std::int64_t high, std::int64_t count, float* to) {
  const float high_slope = SlopeAt(bias.high_slope, head);
  const float low_slope = SlopeAt(bias.low_slope, head);
  const float* values = bias.values + head * bias.head_stride;
  std::int64_t i = 0;
  const std::int64_t above = Max<std::int64_t>(0, Min(count, high - bias.max_offset));
  for (; i < above; ++i) to[i] = -high_slope * static_cast<float>(high - i - bias.max_offset);
  const std::int64_t stored = Max(i, Min(count, high - bias.min_offset + 1));
  if (stored > i) {
    std::memcpy(to + i, values + (bias.max_offset - (high - i)), static_cast<std::size_t>(stored - i) * sizeof(float));
  }
  for (i = stored; i < count; ++i) {
    to[i] = bias.low_value[head] - low_slope * static_cast<float>(bias.min_offset - (high - i));
  }
}

// The biases of rows [row, row + rows) of a batch entry and keys [key, key + keys) of a head, as row_zero. Null if all
// of them are the head's constant, which softmax is invariant to; in the table itself if it holds them all; otherwise
// in `scratch`.
inline const float* BiasSlice(const Attention& a, std::int64_t batch, std::int64_t head, std::int64_t row,
                              std::int64_t rows, std::int64_t key, std::int64_t keys, float* scratch) {
  if (a.bias == nullptr) return nullptr;
  const BiasView& bias = *a.bias;
  const std::int64_t position = QueryOffset(a, batch) + row;
  const std::int64_t high = position + rows - 1 - key;
  const std::int64_t low = position - (key + keys - 1);
  if (low >= bias.max_offset && SlopeAt(bias.high_slope, head) == 0.0f) return nullptr;
  if (low >= bias.min_offset && high <= bias.max_offset) {
    return bias.values + head * bias.head_stride + (bias.max_offset - high) + (rows - 1);
  }
  FillBias(bias, head, high, high - low + 1, scratch);
  return scratch + (rows - 1);
}

// The key biases of keys [key, key + keys) of a head, padded with zeros to a whole packet, in `scratch`; null if the
// problem has none.
inline const float* KeyBiasSlice(const Attention& a, std::int64_t head, std::int64_t key, std::int64_t keys,
                                 float* scratch) {
  if (a.key_bias == nullptr) return nullptr;
  const std::int64_t padded = RoundUp(keys, kWidth);
  std::memcpy(scratch, a.key_bias + head * a.key_length + key, static_cast<std::size_t>(keys) * sizeof(float));
  std::memset(scratch + keys, 0, static_cast<std::size_t>(padded - keys) * sizeof(float));
  return scratch;
}

}  // namespace attnd::kernel::ATTND_KERNEL_TAG
