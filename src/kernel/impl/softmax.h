// The streaming softmax of one row over one tile of scores.
#pragma once

#include "kernel/impl/product.h"

namespace attnd::kernel::ATTND_KERNEL_TAG {

// What a row carries from key tile to key tile. `lane_max` is the running maximum per lane and already includes this
// key tile; `max` is the maximum that lane_sum and output are relative to.
struct SoftmaxRow {
  const float* lane_max;  // [kWidth]
  float* lane_sum;        // [kWidth]
  float* max;
  float* output;  // [packets * kWidth], unnormalised
  std::int64_t packets;
};

// If the row's maximum has grown, rescales its sum and output to the new maximum.
ATTND_INLINE void RaiseMax(const SoftmaxRow& row) {
  const Packet lanes = ei::pload<Packet>(row.lane_max);
  const float before = *row.max;
  if (!ei::predux_any(ei::pcmp_lt(ei::pset1<Packet>(before), lanes))) return;
  const float max = ei::predux_max(lanes);
  *row.max = max;
  if (before == -kInfinity) return;  // nothing but zeros so far
  const Packet factor = Exp2(ei::pset1<Packet>(before - max));
  ei::pstore(row.lane_sum, ei::pmul(ei::pload<Packet>(row.lane_sum), factor));
  for (std::int64_t p = 0; p < row.packets; ++p) {
    ei::pstore(row.output + p * kWidth, ei::pmul(ei::pload<Packet>(row.output + p * kWidth), factor));
  }
}

// The columns [first, last).
struct ColumnRange {
  std::int64_t first;
  std::int64_t last;
};

// Call RaiseMax first. Replaces the scores `seen` by 2^(score - max) and adds them to the row's sum; the other scores
// in the first and last packets of `seen` must be -inf. The columns of `read` outside `seen` become 0; `read` begins at
// a multiple of kWidth.
template <Product kProduct>
ATTND_INLINE void WeighTileRow(float* scores, const ColumnRange& seen, const ColumnRange& read, const SoftmaxRow& row) {
  std::int64_t c = read.first;
  if (seen.first < seen.last) {
    const std::int64_t visible = seen.last;
    const std::int64_t first = seen.first / kWidth * kWidth;
    for (; c < first; c += kWidth) StoreWeights<kProduct>(ei::pset1<Packet>(0.0f), scores, c);
    // A row that has seen only scores of -inf so far keeps weights of 0.
    const Packet max = ei::pset1<Packet>(*row.max == -kInfinity ? 0.0f : *row.max);
    Packet sum = ei::pload<Packet>(row.lane_sum);
    Packet sum2 = ei::pset1<Packet>(0.0f);
    for (; c + kWidth < visible; c += 2 * kWidth) {
      const Packet p = Exp2(ei::psub(ei::pload<Packet>(scores + c), max));
      const Packet p2 = Exp2(ei::psub(ei::pload<Packet>(scores + c + kWidth), max));
      StoreWeights<kProduct>(p, scores, c);
      StoreWeights<kProduct>(p2, scores, c + kWidth);
      sum = ei::padd(sum, p);
      sum2 = ei::padd(sum2, p2);
    }
    for (; c < visible; c += kWidth) {
      const Packet p = Exp2(ei::psub(ei::pload<Packet>(scores + c), max));
      StoreWeights<kProduct>(p, scores, c);
      sum = ei::padd(sum, p);
    }
    ei::pstore(row.lane_sum, ei::padd(sum, sum2));
  }
  for (; c < read.last; c += kWidth) StoreWeights<kProduct>(ei::pset1<Packet>(0.0f), scores, c);
}

}  // namespace attnd::kernel::ATTND_KERNEL_TAG
