// Merges partial results (maximum, sum, output) of several key ranges into the output, and clears rows.
#pragma once

#include "kernel/impl/direct.h"

namespace attnd::kernel::ATTND_KERNEL_TAG {

// Merges one row. Goes through the value columns packet by packet, so it needs memory for one packet only.
inline void MergeRow(const Attention& a, const DirectRow& at, const float* partials, std::int64_t splits,
                     std::int64_t split_stride) {
  float max = -kInfinity;
  for (std::int64_t s = 0; s < splits; ++s) max = Max(max, partials[s * split_stride]);
  const float base = max == -kInfinity ? 0.0f : max;
  float sum = 0.0f;
  for (std::int64_t s = 0; s < splits; ++s) {
    sum += Exp2(partials[s * split_stride] - base) * partials[s * split_stride + 1];
  }
  const float factor = sum == 0.0f ? 0.0f : 1.0f / sum;
  std::byte* out = OutputRow(a, at.batch, at.head, at.query);
  for (std::int64_t d = 0; d < a.value_head_dim; d += kWidth) {
    alignas(64) float block[kWidth] = {};
    const std::int64_t count = Min(kWidth, a.value_head_dim - d);
    for (std::int64_t s = 0; s < splits; ++s) {
      const float* partial = partials + s * split_stride;
      const float weight = Exp2(partial[0] - base);
      for (std::int64_t i = 0; i < count; ++i) block[i] += weight * partial[2 + d + i];
    }
    WriteRow(block, factor, count, a.out.dtype, out + d * ElementSize(a.out.dtype));
  }
  if (a.log_sum_exp != nullptr) {
    LogSumExpOf(a, at.batch, at.head, at.query) = LogSumExp(a, at.head, max, sum);
  }
}

inline void Merge(const Attention& a, const DirectUnit& unit, const float* partials, std::int64_t splits) {
  const std::int64_t rows = DirectRows(a, unit);
  for (std::int64_t r = 0; r < rows; ++r) {
    MergeRow(a, DirectRowAt(a, unit, r), partials + r * PartialFloats(a), splits, rows * PartialFloats(a));
  }
}

inline void Clear(const Attention& a, std::int64_t batch, std::int64_t head, std::int64_t first, std::int64_t last) {
  for (std::int64_t row = first; row < last; ++row) {
    std::memset(OutputRow(a, batch, head, row), 0,
                static_cast<std::size_t>(a.value_head_dim * ElementSize(a.out.dtype)));
    if (a.log_sum_exp != nullptr) LogSumExpOf(a, batch, head, row) = -kInfinity;
  }
}

}  // namespace attnd::kernel::ATTND_KERNEL_TAG
