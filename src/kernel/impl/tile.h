// A tile of query rows against packed keys and values: begin, advance, finish or save.
#pragma once

#include "kernel/impl/bias.h"
#include "kernel/impl/pack.h"
#include "kernel/impl/score.h"
#include "kernel/impl/softmax.h"
#include "kernel/impl/values.h"

namespace attnd::kernel::ATTND_KERNEL_TAG {

struct TileState {
  float* queries;   // [places of head_dim][kQueryTile]; floats times scale * log2(e), bf16 as they are. AMX's bf16:
                    // [kQueryTile][places of head_dim]
  float* output;    // [kQueryTile][value packets * kWidth]
  float* lane_max;  // [kQueryTile][kWidth]
  float* lane_sum;  // [kQueryTile][kWidth]
  float* max;       // [kQueryTile]
};
inline TileState CarveState(const Attention& a, Carver& carver) {
  return {carver.Take<float>(kQueryTile * a.head_dim), carver.Take<float>(kQueryTile * ValuePackets(a) * kWidth),
          carver.Take<float>(kQueryTile * kWidth), carver.Take<float>(kQueryTile * kWidth),
          carver.Take<float>(kQueryTile)};
}
inline std::size_t StateBytes(const Attention& a) {
  Carver carver(nullptr);
  CarveState(a, carver);
  return carver.used();
}

struct TileScratch {
  float* scores;          // [kQueryTile][kKeyTile]
  float* bias;            // BiasScratch
  std::int64_t* visible;  // [kQueryTile]
};
inline TileScratch CarveScratch(Carver& carver) {
  return {carver.Take<float>(kQueryTile * kKeyTile), carver.Take<float>(BiasScratch(kQueryTile, kKeyTile)),
          carver.Take<std::int64_t>(kQueryTile)};
}
inline std::size_t ScratchBytes(const Attention& a) {
  Carver tile(nullptr);
  CarveScratch(tile);
  Carver pack(nullptr);
  CarvePack(a, pack);
  return Max(tile.used(), pack.used());
}

inline void Begin(const Attention& a, const RowTile& tile, std::byte* state_memory, std::byte* scratch_memory) {
  Carver carver(state_memory);
  const TileState state = CarveState(a, carver);
  Carver scratch(scratch_memory);
  const PackScratch work = CarvePack(a, scratch);
  RowReader reader(a.q);
  const Product product = ProductOf(a);
  const float scale = a.scale * kLog2E;
  const std::int64_t padded_rows = RoundUp(tile.rows, kScoreRows);
  std::memset(work.zeros, 0, static_cast<std::size_t>(a.head_dim) * sizeof(float));
  const std::int64_t last = tile.first_row + tile.rows;
  for (std::int64_t r = 0; r < padded_rows; r += kWidth) {
    const float* rows[kWidth];
    FindRows(a.q, product, reader, tile.batch, tile.head, tile.first_row + r, last, a.head_dim, work, rows);
    if (product == Product::kBF16 && kHasAmx) {
      CopyRows(rows, Places(product, a.head_dim), state.queries + r * Places(product, a.head_dim));
    } else if (product == Product::kBF16) {
      TransposeRows<false>(rows, Places(product, a.head_dim), 1.0f, state.queries + r, kQueryTile);
    } else {
      TransposeRows<true>(rows, a.head_dim, scale, state.queries + r, kQueryTile);
    }
  }
  const std::int64_t output_rows = kHasAmx ? RoundUp(tile.rows, kAmxRows) : tile.rows;
  std::memset(state.output, 0, static_cast<std::size_t>(output_rows * ValuePackets(a) * kWidth) * sizeof(float));
  std::memset(state.lane_sum, 0, static_cast<std::size_t>(tile.rows * kWidth) * sizeof(float));
  for (std::int64_t i = 0; i < padded_rows * kWidth; ++i) state.lane_max[i] = -kInfinity;
  for (std::int64_t r = 0; r < tile.rows; ++r) state.max[r] = -kInfinity;
}

// The keys [key, key + keys) of a tile: at most kKeyTile of them.
struct KeyTile {
  std::int64_t key;
  std::int64_t keys;
};

template <Product kProduct>
inline void ScoreTile(const Attention& a, const RowTile& tile, const PackedHead& packed, const KeyTile& range,
                      const TileState& state, const TileScratch& scratch) {
  const std::int64_t rows = RoundUp(tile.rows, kScoreRows);
  const std::int64_t places = Places(kProduct, a.head_dim);
  const float* bias =
      BiasSlice(a, tile.head, tile.first_row, rows, range.key, RoundUp(range.keys, kWidth), scratch.bias);
  const float* panels = reinterpret_cast<const float*>(packed.keys_data) + (range.key - packed.first_key) * places;
  for (std::int64_t c = 0; c < range.keys; c += kPanel) {
    for (std::int64_t r = 0; r < rows; r += kScoreRows) {
      // Rows see the more keys the later they are: the last row decides what is computed, the first what is masked.
      const std::int64_t end = Min(range.keys, scratch.visible[r + kScoreRows - 1]) - c;
      if (end <= 0) continue;
      const std::int64_t columns = Min(kPanel, RoundUp(end, kWidth));
      std::int64_t visible[kScoreRows];
      const bool masked = scratch.visible[r] - c < columns;
      if (masked) {
        for (int i = 0; i < kScoreRows; ++i) visible[i] = scratch.visible[r + i] - c;
      }
      const ScoreBlock block{state.queries + r,
                             panels + c * places,
                             places,
                             a.scale * kLog2E,
                             bias == nullptr ? nullptr : bias - r + c,
                             masked ? visible : nullptr,
                             scratch.scores + r * kKeyTile + c,
                             kKeyTile,
                             state.lane_max + r * kWidth};
      ComputeScores<kProduct>(block, columns / kWidth);
    }
  }
}

// Rows that share a block of values read the weights of its last row's keys, so the others' must be zeros there.
template <Product kProduct>
inline void SoftmaxTile(const Attention& a, const RowTile& tile, const TileState& state, const TileScratch& scratch) {
  const std::int64_t packets = ValuePackets(a);
  const auto row = [&](std::int64_t r) {
    return SoftmaxRow{state.lane_max + r * kWidth, state.lane_sum + r * kWidth, state.max + r,
                      state.output + r * packets * kWidth, packets};
  };
  constexpr std::int64_t kSharing = kUsesAmx<kProduct> ? kAmxRows : kValueRows;
  constexpr std::int64_t kKeysRead = kUsesAmx<kProduct> ? 2 * kAmxPairs : 1;
  // All maxima first: their chains of dependent shuffles then overlap.
  for (std::int64_t r = 0; r < tile.rows; ++r) RaiseMax(row(r));
  for (std::int64_t r = 0; r < tile.rows; ++r) {
    const std::int64_t last = Min(tile.rows, r / kSharing * kSharing + kSharing) - 1;
    WeighTileRow<kProduct>(scratch.scores + r * kKeyTile, scratch.visible[r], RoundUp(scratch.visible[last], kKeysRead),
                           row(r));
  }
}

template <Product kProduct>
inline void ValueTile(const Attention& a, const RowTile& tile, const PackedHead& packed, const KeyTile& range,
                      const TileState& state, const TileScratch& scratch) {
  const std::int64_t packets = ValuePackets(a);
  // A weight of zero times an infinite value is NaN: rows must then not touch keys that they do not see.
  const std::int64_t group = packed.finite_values ? kValueRows : 1;
  for (std::int64_t c = 0; c < ValueChunks(packets); ++c) {
    const ValueChunk chunk = ChunkAt(packets, c);
    const float* values = reinterpret_cast<const float*>(packed.values_data) +
                          (chunk.first_packet * Places(kProduct, packed.keys) +
                           Places(kProduct, range.key - packed.first_key) * chunk.packets) *
                              kWidth;
    for (std::int64_t r = 0; r < tile.rows; r += group) {
      const std::int64_t rows = Min(group, tile.rows - r);
      const std::int64_t keys = scratch.visible[r + rows - 1];
      if (keys <= 0) continue;
      // Then also the key that shares a pair with a row's last one must not be touched.
      const bool odd_last = kProduct == Product::kBF16 && !packed.finite_values && keys % 2 != 0;
      const ValueBlock block{scratch.scores + r * kKeyTile,
                             kKeyTile,
                             values,
                             chunk.packets * kWidth,
                             Places(kProduct, keys) - (odd_last ? 1 : 0),
                             state.output + (r * packets + chunk.first_packet) * kWidth,
                             packets * kWidth};
      AddValues<kProduct>(block, rows, chunk.packets);
      if (odd_last) AddFirstOfPair(block, chunk.packets);
    }
  }
}

// Calls step(range) for every tile of the keys [first_key, last_key) that a row sees, its visible keys counted.
template <typename Step>
ATTND_INLINE void ForEachKeyTile(const Attention& a, const RowTile& tile, std::int64_t first_key, std::int64_t last_key,
                                 const TileScratch& scratch, const Step& step) {
  const std::int64_t end = VisibleKeys(a, last_key, tile.first_row + tile.rows - 1);
  for (std::int64_t key = first_key; key < end; key += kKeyTile) {
    const KeyTile range{key, Min(kKeyTile, end - key)};
    for (std::int64_t r = 0; r < RoundUp(tile.rows, kScoreRows); ++r) {
      const std::int64_t row = tile.first_row + Min(r, tile.rows - 1);
      scratch.visible[r] = Max<std::int64_t>(0, Min(range.keys, VisibleKeys(a, end, row) - key));
    }
    step(range);
  }
}

template <Product kProduct>
inline void AdvanceWith(const Attention& a, const RowTile& tile, const PackedHead& packed, std::int64_t first_key,
                        std::int64_t last_key, std::byte* state_memory, std::byte* scratch_memory) {
  Carver carver(state_memory);
  const TileState state = CarveState(a, carver);
  Carver scratch_carver(scratch_memory);
  const TileScratch scratch = CarveScratch(scratch_carver);
  ForEachKeyTile(a, tile, first_key, last_key, scratch, [&](const KeyTile& range) {
    ScoreTile<kProduct>(a, tile, packed, range, state, scratch);
    SoftmaxTile<kProduct>(a, tile, state, scratch);
    ValueTile<kProduct>(a, tile, packed, range, state, scratch);
  });
}

inline void Advance(const Attention& a, const RowTile& tile, const PackedHead& packed, std::int64_t first_key,
                    std::int64_t last_key, std::byte* state, std::byte* scratch) {
  if constexpr (kHasBf16) {
    if (ProductOf(a) == Product::kBF16) {
      return AdvanceWith<Product::kBF16>(a, tile, packed, first_key, last_key, state, scratch);
    }
  }
  AdvanceWith<Product::kF32>(a, tile, packed, first_key, last_key, state, scratch);
}

// The row's log-sum-exp in natural logarithms, from its maximum (base 2) and sum.
inline float LogSumExp(const Attention& a, std::int64_t head, float max, float sum) {
  if (sum == 0.0f) return -kInfinity;
  const double constant = a.bias == nullptr ? 0.0 : static_cast<double>(a.bias->constant[head]);
  constexpr double kLn2 = 0.69314718055994530942;
  return static_cast<float>(static_cast<double>(max) * kLn2 + __builtin_log(static_cast<double>(sum)) + constant);
}

// Writes one finished row.
inline void FinishRow(const Attention& a, std::int64_t batch, std::int64_t head, std::int64_t row, float max, float sum,
                      const float* output) {
  const float factor = sum == 0.0f ? 0.0f : 1.0f / sum;
  WriteRow(output, factor, a.value_head_dim, a.out.dtype, OutputRow(a, batch, head, row));
  if (a.log_sum_exp != nullptr) {
    a.log_sum_exp[(batch * a.heads + head) * a.query_length + row] = LogSumExp(a, head, max, sum);
  }
}

inline void Finish(const Attention& a, const RowTile& tile, std::byte* state_memory) {
  Carver carver(state_memory);
  const TileState state = CarveState(a, carver);
  for (std::int64_t r = 0; r < tile.rows; ++r) {
    FinishRow(a, tile.batch, tile.head, tile.first_row + r, state.max[r],
              ei::predux(ei::pload<Packet>(state.lane_sum + r * kWidth)), state.output + r * ValuePackets(a) * kWidth);
  }
}

inline void SaveRow(const Attention& a, float max, float sum, const float* output, float* partial) {
  partial[0] = max;
  partial[1] = sum;
  std::memcpy(partial + 2, output, static_cast<std::size_t>(a.value_head_dim) * sizeof(float));
}

inline void Save(const Attention& a, const RowTile& tile, const std::byte* state_memory, float* partial) {
  Carver carver(const_cast<std::byte*>(state_memory));
  const TileState state = CarveState(a, carver);
  for (std::int64_t r = 0; r < tile.rows; ++r) {
    SaveRow(a, state.max[r], ei::predux(ei::pload<Packet>(state.lane_sum + r * kWidth)),
            state.output + r * ValuePackets(a) * kWidth, partial + r * PartialFloats(a));
  }
}

}  // namespace attnd::kernel::ATTND_KERNEL_TAG
