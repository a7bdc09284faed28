// Scores: query rows times packed keys, with bias, mask and running row maximum fused in.
#pragma once

#include "kernel/impl/product.h"

namespace attnd::kernel::ATTND_KERNEL_TAG {

// Bit masks that, read from kPanel - n on, keep the first n columns and make the others -inf.
struct MaskRamp {
  std::uint32_t keep[2 * kPanel];
  std::uint32_t fill[2 * kPanel];
};
constexpr MaskRamp MakeMaskRamp() {
  MaskRamp ramp{};
  for (int i = 0; i < 2 * kPanel; ++i) {
    ramp.keep[i] = i < kPanel ? 0xffffffffu : 0u;
    ramp.fill[i] = i < kPanel ? 0u : 0xff800000u;
  }
  return ramp;
}
alignas(64) inline constexpr MaskRamp kMaskRamp = MakeMaskRamp();

// Keeps `score` in the first `visible` (0 ... kPanel) columns of a block, of which this is packet `c`.
ATTND_INLINE Packet MaskScore(Packet score, std::int64_t visible, int c) {
  const std::int64_t at = kPanel - visible + c * kWidth;
  const Packet keep = ei::ploadu<Packet>(reinterpret_cast<const float*>(kMaskRamp.keep + at));
  const Packet fill = ei::ploadu<Packet>(reinterpret_cast<const float*>(kMaskRamp.fill + at));
  return ei::por(ei::pand(score, keep), fill);
}

// Makes `score` -inf in the first `hidden` (0 ... kPanel) columns of a block, of which this is packet `c`.
ATTND_INLINE Packet HideFirst(Packet score, std::int64_t hidden, int c) {
  const Packet hide = ei::ploadu<Packet>(reinterpret_cast<const float*>(kMaskRamp.keep + kPanel - hidden + c * kWidth));
  return ei::por(ei::pandnot(score, hide), ei::pand(ei::pset1<Packet>(-kInfinity), hide));
}

// Keeps `score` where `keep`, read as bits, is all ones and makes it -inf where it is zeros.
ATTND_INLINE Packet KeepScore(Packet score, const float* keep) {
  const Packet mask = ei::ploadu<Packet>(keep);
  return ei::por(ei::pand(score, mask), ei::pandnot(ei::pset1<Packet>(-kInfinity), mask));
}

// One block: kScoreRows rows by kCols packets of keys.
struct ScoreBlock {
  const std::byte* const* queries;  // kScoreRows rows of floats or pairs, of any alignment
  const float* keys;                // [dim][kPanel]
  std::int64_t dim;                 // places: head_dim, or pairs of it
  float scale;                      // of bf16 products; float keys are already scaled
  const float* bias;                // row r's begin at bias - r; null for none
  const float* key_bias;            // per key; null for none
  const std::int64_t* visible;      // per row, counted from this block's first key; null if no key is masked
  const std::int64_t* hidden;       // per row, counted likewise: columns before this are hidden; null if none are
  const float* keep;                // per key, as KeepScore takes it; null if key bits hide none
  float* scores;                    // row r's at scores + r * stride
  std::int64_t stride;
  float* row_max;  // [kScoreRows][kWidth], running
};

// kWindow: as in tile.h; without it key_bias and hidden are null.
template <Product kProduct, bool kWindow, int kCols>
void ComputeScores(const ScoreBlock& block) {
  Packet acc[kScoreRows][kCols];
#pragma GCC unroll 8
  for (int r = 0; r < kScoreRows; ++r) {
#pragma GCC unroll 4
    for (int c = 0; c < kCols; ++c) acc[r][c] = ei::pset1<Packet>(0.0f);
  }
  const std::byte* queries[kScoreRows];
#pragma GCC unroll 8
  for (int r = 0; r < kScoreRows; ++r) queries[r] = block.queries[r];
  const float* k = block.keys;
  for (std::int64_t d = 0; d < block.dim; ++d, k += kPanel) {
    Packet key[kCols];
#pragma GCC unroll 4
    for (int c = 0; c < kCols; ++c) key[c] = ei::pload<Packet>(k + c * kWidth);
#pragma GCC unroll 8
    for (int r = 0; r < kScoreRows; ++r) {
      const Packet query = ei::pset1<Packet>(FloatAt(queries[r], d));
#pragma GCC unroll 4
      for (int c = 0; c < kCols; ++c) acc[r][c] = MultiplyAdd<kProduct>(query, key[c], acc[r][c]);
    }
  }
  if constexpr (kProduct == Product::kBF16) {
    const Packet scale = ei::pset1<Packet>(block.scale);
#pragma GCC unroll 8
    for (int r = 0; r < kScoreRows; ++r) {
#pragma GCC unroll 4
      for (int c = 0; c < kCols; ++c) acc[r][c] = ei::pmul(acc[r][c], scale);
    }
  }
  if (block.bias != nullptr) {
    const Packet log2e = ei::pset1<Packet>(kLog2E);
#pragma GCC unroll 8
    for (int r = 0; r < kScoreRows; ++r) {
#pragma GCC unroll 4
      for (int c = 0; c < kCols; ++c) {
        acc[r][c] = ei::pmadd(ei::ploadu<Packet>(block.bias - r + c * kWidth), log2e, acc[r][c]);
      }
    }
  }
  if (kWindow && block.key_bias != nullptr) {
    const Packet log2e = ei::pset1<Packet>(kLog2E);
#pragma GCC unroll 4
    for (int c = 0; c < kCols; ++c) {
      const Packet bias = ei::pload<Packet>(block.key_bias + c * kWidth);
#pragma GCC unroll 8
      for (int r = 0; r < kScoreRows; ++r) acc[r][c] = ei::pmadd(bias, log2e, acc[r][c]);
    }
  }
  if (block.visible != nullptr) {
#pragma GCC unroll 8
    for (int r = 0; r < kScoreRows; ++r) {
      const std::int64_t visible = Max<std::int64_t>(0, Min(kPanel, block.visible[r]));
#pragma GCC unroll 4
      for (int c = 0; c < kCols; ++c) acc[r][c] = MaskScore(acc[r][c], visible, c);
    }
  }
  if (kWindow && block.hidden != nullptr) {
#pragma GCC unroll 8
    for (int r = 0; r < kScoreRows; ++r) {
      const std::int64_t hidden = Max<std::int64_t>(0, Min(kPanel, block.hidden[r]));
#pragma GCC unroll 4
      for (int c = 0; c < kCols; ++c) acc[r][c] = HideFirst(acc[r][c], hidden, c);
    }
  }
  if (block.keep != nullptr) {
#pragma GCC unroll 8
    for (int r = 0; r < kScoreRows; ++r) {
#pragma GCC unroll 4
      for (int c = 0; c < kCols; ++c) acc[r][c] = KeepScore(acc[r][c], block.keep + c * kWidth);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kScoreRows; ++r) {
    Packet max = ei::pload<Packet>(block.row_max + r * kWidth);
#pragma GCC unroll 4
    for (int c = 0; c < kCols; ++c) {
      ei::pstore(block.scores + r * block.stride + c * kWidth, acc[r][c]);
      max = ei::pmax(max, acc[r][c]);
    }
    ei::pstore(block.row_max + r * kWidth, max);
  }
}

template <Product kProduct, bool kWindow>
inline void ComputeScores(const ScoreBlock& block, std::int64_t packets) {
  static_assert(kScoreCols <= 3);
  switch (packets) {
    case 1:
      return ComputeScores<kProduct, kWindow, 1>(block);
    case 2:
      return ComputeScores<kProduct, kWindow, 2>(block);
    default:
      return ComputeScores<kProduct, kWindow, kScoreCols>(block);
  }
}

}  // namespace attnd::kernel::ATTND_KERNEL_TAG
