// Short queries: few rows against many keys, which are read once and in place, so that memory bandwidth is the bound.
#pragma once

#include "kernel/impl/tile.h"

namespace attnd::kernel::ATTND_KERNEL_TAG {

struct DirectScratch {
  float* queries;   // [kDirectRows][head_dim padded to packets], times scale * log2(e)
  float* scores;    // [kDirectRows][kDirectKeys]
  float* output;    // [kDirectRows][value packets * kWidth]
  float* lane_max;  // [kDirectRows][kWidth]
  float* lane_sum;  // [kDirectRows][kWidth]
  float* max;       // [kDirectRows]
  float* bias;      // BiasScratch of one row
  float* key_bias;  // [kDirectKeys]
  float* keep;      // [kDirectKeys]
  float* rows;      // [kDirectKeys] rows of keys or of values, for those that cannot be read in place
  float* gather;    // one row
};

ATTND_INLINE std::int64_t PaddedDim(const Attention& a) { return RoundUp(a.head_dim, kWidth); }

inline DirectScratch CarveDirect(const Attention& a, Carver& carver) {
  const std::int64_t value_dim = ValuePackets(a) * kWidth;
  const std::int64_t dim = Max(PaddedDim(a), value_dim);
  return {carver.Take<float>(kDirectRows * PaddedDim(a)),
          carver.Take<float>(kDirectRows * kDirectKeys),
          carver.Take<float>(kDirectRows * value_dim),
          carver.Take<float>(kDirectRows * kWidth),
          carver.Take<float>(kDirectRows * kWidth),
          carver.Take<float>(kDirectRows),
          carver.Take<float>(BiasScratch(1, kDirectKeys)),
          carver.Take<float>(kDirectKeys),
          carver.Take<float>(kDirectKeys),
          carver.Take<float>(kDirectKeys * dim),
          carver.Take<float>(2 * dim)};
}
inline std::size_t DirectScratchBytes(const Attention& a) {
  Carver carver(nullptr);
  CarveDirect(a, carver);
  return carver.used();
}

// A block of rows of keys or values, each padded with zeros to whole packets.
struct RowBlock {
  const float* data;  // of any alignment
  std::int64_t stride;
};

// The rows [row, row + rows) of a tensor: in place where they are fp32, whole packets long and in one segment, else
// copied to `scratch.rows`.
inline RowBlock ReadRows(const TensorView& view, RowReader& reader, std::int64_t position, std::int64_t rows,
                         std::int64_t dim, const DirectScratch& scratch) {
  if (view.dtype == tensor::DType::kF32 && dim % kWidth == 0 && view.row_stride >= 0) {
    const std::int64_t elements = (rows - 1) * view.row_stride + dim;
    if (const std::byte* in_place = reader.InPlace(position * 4, elements * 4)) {
      return {reinterpret_cast<const float*>(in_place), view.row_stride};
    }
  }
  const std::int64_t stride = RoundUp(dim, kWidth);
  auto* gather = reinterpret_cast<std::byte*>(scratch.gather);
  for (std::int64_t r = 0; r < rows; ++r) {
    CopyRow(reader, view.dtype, position + r * view.row_stride, dim, gather, scratch.rows + r * stride);
  }
  return {scratch.rows, stride};
}

// A copy of a block of values with zeros for the keys that key bits hide: their weights are zeros, and zero times NaN
// is NaN.
inline RowBlock ClearHidden(const Attention& a, std::int64_t batch, const KeyTile& range, const RowBlock& values,
                            const DirectScratch& scratch) {
  const std::int64_t stride = ValuePackets(a) * kWidth;
  const std::size_t bytes = static_cast<std::size_t>(stride) * sizeof(float);
  for (std::int64_t r = 0; r < range.keys; ++r) {
    float* to = scratch.rows + r * stride;
    if (!KeyBit(a, batch, range.key + r)) {
      std::memset(to, 0, bytes);
    } else if (values.data != scratch.rows) {
      std::memcpy(to, values.data + r * values.stride, bytes);
    }
  }
  return {scratch.rows, stride};
}

// Products of one query with kWidth rows of keys, of which the last ones may repeat.
ATTND_INLINE Packet ScoreKeys(const float* query, const float* const (&keys)[kWidth], std::int64_t padded_dim) {
  ei::PacketBlock<Packet, kWidth> acc;
#pragma GCC unroll 16
  for (int i = 0; i < kWidth; ++i) {  // row by row, as they lie: the processor then reads ahead by itself
    acc.packet[i] = ei::pset1<Packet>(0.0f);
    for (std::int64_t d = 0; d < padded_dim; d += kWidth) {
      acc.packet[i] = ei::pmadd(ei::pload<Packet>(query + d), ei::ploadu<Packet>(keys[i] + d), acc.packet[i]);
    }
  }
  ei::ptranspose(acc);
#pragma GCC unroll 8
  for (int half = kWidth / 2; half > 0; half /= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < half; ++i) acc.packet[i] = ei::padd(acc.packet[i], acc.packet[i + half]);
  }
  return acc.packet[0];
}

// A row of a direct call: a query of one of the heads that share the key head.
struct DirectRow {
  std::int64_t head;
  std::int64_t query;
};
ATTND_INLINE DirectRow DirectRowAt(const Attention& a, std::int64_t batch, std::int64_t kv_head, std::int64_t row) {
  const std::int64_t queries = QueryLength(a, batch);
  return {kv_head * (a.heads / a.kv_heads) + row / queries, row % queries};
}

inline void ReadQueries(const Attention& a, std::int64_t batch, std::int64_t kv_head, std::int64_t rows,
                        const DirectScratch& scratch) {
  RowReader reader(a.q);
  const Packet scale = ei::pset1<Packet>(a.scale * kLog2E);
  const std::int64_t padded = PaddedDim(a);
  for (std::int64_t r = 0; r < rows; ++r) {
    const DirectRow at = DirectRowAt(a, batch, kv_head, r);
    const float* row = reader.Floats(PlaceOf(a.q, batch, at.head, at.query), a.head_dim, scratch.gather);
    float* to = scratch.queries + r * padded;
    std::memcpy(to, row, static_cast<std::size_t>(a.head_dim) * sizeof(float));
    std::memset(to + a.head_dim, 0, static_cast<std::size_t>(padded - a.head_dim) * sizeof(float));
    for (std::int64_t d = 0; d < padded; d += kWidth) {
      ei::pstore(to + d, ei::pmul(ei::pload<Packet>(to + d), scale));
    }
  }
}

// Scores of every row against the keys of a step, with bias, mask and running maximum.
inline void ScoreStep(const Attention& a, std::int64_t batch, std::int64_t kv_head, std::int64_t rows,
                      const KeyTile& range, const RowBlock& keys, const RowKeys& seen, const DirectScratch& scratch) {
  for (std::int64_t c = 0; c < range.keys; c += kWidth) {
    const float* at[kWidth];
    for (int i = 0; i < kWidth; ++i) at[i] = keys.data + Min(c + i, range.keys - 1) * keys.stride;
    for (std::int64_t r = 0; r < rows; ++r) {
      ei::pstore(scratch.scores + r * kDirectKeys + c, ScoreKeys(scratch.queries + r * PaddedDim(a), at, PaddedDim(a)));
    }
  }
  const std::int64_t columns = RoundUp(range.keys, kWidth);
  const Packet log2e = ei::pset1<Packet>(kLog2E);
  for (std::int64_t r = 0; r < rows; ++r) {
    const DirectRow at = DirectRowAt(a, batch, kv_head, r);
    const float* bias = BiasSlice(a, batch, at.head, at.query, 1, range.key, columns, scratch.bias);
    const float* key_bias = KeyBiasSlice(a, at.head, range.key, range.keys, scratch.key_bias);
    float* scores = scratch.scores + r * kDirectKeys;
    Packet max = ei::pload<Packet>(scratch.lane_max + r * kWidth);
    for (std::int64_t c = 0; c < columns; c += kWidth) {
      Packet score = ei::pload<Packet>(scores + c);
      if (bias != nullptr) score = ei::pmadd(ei::ploadu<Packet>(bias + c), log2e, score);
      if (key_bias != nullptr) score = ei::pmadd(ei::pload<Packet>(key_bias + c), log2e, score);
      if (seen.visible[r] - c < kWidth) score = MaskScore(score, Max<std::int64_t>(0, seen.visible[r] - c), 0);
      if (seen.hidden[r] > c) score = HideFirst(score, Min(kWidth, seen.hidden[r] - c), 0);
      if (range.keep != nullptr) score = KeepScore(score, range.keep + c);
      ei::pstore(scores + c, score);
      max = ei::pmax(max, score);
    }
    ei::pstore(scratch.lane_max + r * kWidth, max);
  }
}

// Adds the step's values. Rows are taken together where they see the same keys.
inline void ValueStep(const Attention& a, std::int64_t rows, const RowBlock& values, const RowKeys& seen,
                      const DirectScratch& scratch) {
  const std::int64_t packets = ValuePackets(a);
  for (std::int64_t r = 0; r < rows;) {
    const auto like_first = [&seen, r](std::int64_t other) {
      return seen.visible[other] == seen.visible[r] && seen.hidden[other] == seen.hidden[r];
    };
    std::int64_t group = 1;
    while (group < kValueRows && r + group < rows && like_first(r + group)) ++group;
    for (std::int64_t c = 0; c < ValueChunks(packets) && seen.hidden[r] < seen.visible[r]; ++c) {
      const ValueChunk chunk = ChunkAt(packets, c);
      const ValueBlock block{scratch.scores + r * kDirectKeys,
                             kDirectKeys,
                             values.data + chunk.first_packet * kWidth,
                             values.stride,
                             seen.visible[r],
                             scratch.output + (r * packets + chunk.first_packet) * kWidth,
                             packets * kWidth};
      AddValues<Product::kF32>(FromPlace(block, seen.hidden[r]), group, chunk.packets);
    }
    r += group;
  }
}

inline void Direct(const Attention& a, std::int64_t batch, std::int64_t kv_head, std::int64_t first, std::int64_t last,
                   float* partial, std::byte* scratch_memory) {
  Carver carver(scratch_memory);
  const DirectScratch scratch = CarveDirect(a, carver);
  const std::int64_t rows = QueryLength(a, batch) * (a.heads / a.kv_heads);
  const std::int64_t packets = ValuePackets(a);
  ReadQueries(a, batch, kv_head, rows, scratch);
  std::memset(scratch.output, 0, static_cast<std::size_t>(rows * packets * kWidth) * sizeof(float));
  std::memset(scratch.lane_sum, 0, static_cast<std::size_t>(rows * kWidth) * sizeof(float));
  for (std::int64_t i = 0; i < rows * kWidth; ++i) scratch.lane_max[i] = -kInfinity;
  for (std::int64_t r = 0; r < rows; ++r) scratch.max[r] = -kInfinity;

  RowReader keys(a.k);
  RowReader values(a.v);
  const std::int64_t end = VisibleKeys(a, batch, last, QueryLength(a, batch) - 1);
  for (std::int64_t key = Max(first, FirstVisible(a, batch, 0)); key < end; key += kDirectKeys) {
    KeyTile range{key, Min(kDirectKeys, end - key), nullptr};
    if (!FindKept(a, batch, key, range.keys, scratch.keep, range.keep)) continue;
    std::int64_t visible[kDirectRows], hidden[kDirectRows];
    for (std::int64_t r = 0; r < rows; ++r) {
      const std::int64_t query = DirectRowAt(a, batch, kv_head, r).query;
      visible[r] = Max<std::int64_t>(0, Min(range.keys, VisibleKeys(a, batch, end, query) - key));
      hidden[r] = Max<std::int64_t>(0, Min(visible[r], FirstVisible(a, batch, query) - key));
    }
    const RowKeys seen{hidden, visible};
    const RowBlock key_rows = ReadRows(a.k, keys, PlaceOf(a.k, batch, kv_head, key), range.keys, a.head_dim, scratch);
    ScoreStep(a, batch, kv_head, rows, range, key_rows, seen, scratch);
    for (std::int64_t r = 0; r < rows; ++r) {
      const SoftmaxRow row{scratch.lane_max + r * kWidth, scratch.lane_sum + r * kWidth, scratch.max + r,
                           scratch.output + r * packets * kWidth, packets};
      RaiseMax(row);
      const ColumnRange columns{hidden[r], visible[r]};
      WeighTileRow<Product::kF32>(scratch.scores + r * kDirectKeys, columns, {hidden[r] / kWidth * kWidth, visible[r]},
                                  row);
    }
    RowBlock value_rows =
        ReadRows(a.v, values, PlaceOf(a.v, batch, kv_head, key), range.keys, a.value_head_dim, scratch);
    if (range.keep != nullptr) value_rows = ClearHidden(a, batch, range, value_rows, scratch);
    ValueStep(a, rows, value_rows, seen, scratch);
  }
  for (std::int64_t r = 0; r < rows; ++r) {
    const RowResult result{scratch.max[r], ei::predux(ei::pload<Packet>(scratch.lane_sum + r * kWidth)),
                           scratch.output + r * packets * kWidth};
    SaveRow(a, result, partial + r * PartialFloats(a));
  }
}

}  // namespace attnd::kernel::ATTND_KERNEL_TAG
