// Short queries: few rows against many keys, which are read once and in place, so that memory bandwidth is the bound.
#pragma once

#include "kernel/impl/step_rows.h"
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
  float* zeros;     // one row
  StepScratch step;
};

ATTND_INLINE std::int64_t PaddedDim(const Attention& a) { return RoundUp(a.head_dim, kWidth); }

inline DirectScratch CarveDirect(const Attention& a, Carver& carver) {
  const std::int64_t value_dim = ValuePackets(a) * kWidth;
  const std::int64_t dim = Max(PaddedDim(a), value_dim);
  return {
      carver.Take<float>(kDirectRows * PaddedDim(a)),
      carver.Take<float>(kDirectRows * kDirectKeys),
      carver.Take<float>(kDirectRows * value_dim),
      carver.Take<float>(kDirectRows * kWidth),
      carver.Take<float>(kDirectRows * kWidth),
      carver.Take<float>(kDirectRows),
      carver.Take<float>(BiasScratch(1, kDirectKeys)),
      carver.Take<float>(kDirectKeys),
      carver.Take<float>(kDirectKeys),
      carver.Take<float>(value_dim),
      {carver.Take<const std::byte*>(kDirectKeys), carver.Take<float>(kDirectKeys * dim), carver.Take<float>(2 * dim)}};
}
inline std::size_t DirectScratchBytes(const Attention& a) {
  Carver carver(nullptr);
  CarveDirect(a, carver);
  return carver.used();
}

// A row of a direct call: a query of one of the heads that share the key head, of one of the entries.
struct DirectRow {
  std::int64_t batch;
  std::int64_t head;
  std::int64_t query;
};
ATTND_INLINE std::int64_t DirectRows(const Attention& a, const DirectUnit& unit) {
  return unit.entries * QueryLength(a, unit.batch) * (a.heads / a.kv_heads);
}
ATTND_INLINE DirectRow DirectRowAt(const Attention& a, const DirectUnit& unit, std::int64_t row) {
  const std::int64_t queries = QueryLength(a, unit.batch);
  const std::int64_t group = a.heads / a.kv_heads;
  const std::int64_t head = row / queries;
  return {unit.batch + head / group, unit.kv_head * group + head % group, row % queries};
}

// The rows of a call with their running softmax.
struct DirectCall {
  const Attention& attention;
  const DirectUnit& unit;
  std::int64_t rows;
  DirectRow at[kDirectRows];
  DirectScratch scratch;
};

inline void ReadQueries(const DirectCall& call) {
  const Attention& a = call.attention;
  const Packet scale = ei::pset1<Packet>(a.scale * kLog2E);
  const std::int64_t padded = PaddedDim(a);
  for (std::int64_t r = 0; r < call.rows; ++r) {
    const DirectRow& at = call.at[r];
    RowReader reader(a.q, at.batch, at.head);
    const float* row = reader.Floats(at.query, a.head_dim, call.scratch.step.gather);
    float* to = call.scratch.queries + r * padded;
    std::memcpy(to, row, static_cast<std::size_t>(a.head_dim) * sizeof(float));
    std::memset(to + a.head_dim, 0, static_cast<std::size_t>(padded - a.head_dim) * sizeof(float));
    for (std::int64_t d = 0; d < padded; d += kWidth) {
      ei::pstore(to + d, ei::pmul(ei::pload<Packet>(to + d), scale));
    }
  }
}

// Scores of every row against the keys of a step.
template <tensor::DType kDType>
inline void MultiplyKeys(const DirectCall& call, std::int64_t count, const std::byte* const* keys) {
  const std::int64_t dim = PaddedDim(call.attention);
  for (std::int64_t c = 0; c < count; c += kWidth) {
    const std::byte* at[kWidth];
    for (int i = 0; i < kWidth; ++i) at[i] = keys[Min(c + i, count - 1)];
    for (std::int64_t r = 0; r < call.rows; ++r) {
      ei::pstore(call.scratch.scores + r * kDirectKeys + c, ScoreKeys<kDType>(call.scratch.queries + r * dim, at, dim));
    }
  }
}

// Adds biases, masks, and raises the running maxima.
inline void MaskScores(const DirectCall& call, const KeyTile& range, const RowKeys& seen) {
  const Attention& a = call.attention;
  const DirectScratch& scratch = call.scratch;
  const std::int64_t columns = RoundUp(range.keys, kWidth);
  const Packet log2e = ei::pset1<Packet>(kLog2E);
  for (std::int64_t r = 0; r < call.rows; ++r) {
    const DirectRow& at = call.at[r];
    const float* bias = BiasSlice(a, at.batch, at.head, at.query, 1, range.key, columns, scratch.bias);
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
template <tensor::DType kDType>
inline void AddValuesOfStep(const DirectCall& call, const std::byte* const* values, const RowKeys& seen) {
  const std::int64_t packets = ValuePackets(call.attention);
  for (std::int64_t r = 0; r < call.rows;) {
    const auto like_first = [&seen, r](std::int64_t other) {
      return seen.visible[other] == seen.visible[r] && seen.hidden[other] == seen.hidden[r];
    };
    std::int64_t group = 1;
    while (group < kStepRows && r + group < call.rows && like_first(r + group)) ++group;
    const std::int64_t hidden = seen.hidden[r];
    for (std::int64_t c = 0; c < ValueChunks(packets) && hidden < seen.visible[r]; ++c) {
      const ValueChunk chunk = ChunkAt(packets, c);
      AddStepValues<kDType>({call.scratch.scores + r * kDirectKeys + hidden, kDirectKeys, values + hidden,
                             chunk.first_packet * kWidth, seen.visible[r] - hidden,
                             call.scratch.output + (r * packets + chunk.first_packet) * kWidth, packets * kWidth},
                            group, chunk.packets);
    }
    r += group;
  }
}

// Puts zeros in the place of values that key bits hide: their weights are zeros, and zero times NaN is NaN.
inline void ZeroHidden(const DirectCall& call, const KeyTile& range) {
  for (std::int64_t r = 0; r < range.keys; ++r) {
    if (KeyBit(call.attention, call.unit.batch, range.key + r)) continue;
    call.scratch.step.rows[r] = reinterpret_cast<const std::byte*>(call.scratch.zeros);
  }
}

inline void DirectStep(const DirectCall& call, const KeyTile& range, std::int64_t end, RowReader& keys,
                       RowReader& values) {
  const Attention& a = call.attention;
  const DirectScratch& scratch = call.scratch;
  std::int64_t visible[kDirectRows], hidden[kDirectRows];
  for (std::int64_t r = 0; r < call.rows; ++r) {
    const DirectRow& at = call.at[r];
    visible[r] = Max<std::int64_t>(0, Min(range.keys, VisibleKeys(a, at.batch, end, at.query) - range.key));
    hidden[r] = Max<std::int64_t>(0, Min(visible[r], FirstVisible(a, at.batch, at.query) - range.key));
  }
  const RowKeys seen{hidden, visible};
  const StepRows key_rows = FindStepRows(a.k, keys, range.key, range.keys, a.head_dim, scratch.step);
  WithDType(key_rows.dtype, [&]<tensor::DType kDType>() { MultiplyKeys<kDType>(call, range.keys, key_rows.rows); });
  MaskScores(call, range, seen);
  const std::int64_t packets = ValuePackets(a);
  for (std::int64_t r = 0; r < call.rows; ++r) {
    const SoftmaxRow row{scratch.lane_max + r * kWidth, scratch.lane_sum + r * kWidth, scratch.max + r,
                         scratch.output + r * packets * kWidth, packets};
    RaiseMax(row);
    WeighTileRow<Product::kF32>(scratch.scores + r * kDirectKeys, {hidden[r], visible[r]},
                                {hidden[r] / kWidth * kWidth, visible[r]}, row);
  }
  const StepRows value_rows = FindStepRows(a.v, values, range.key, range.keys, a.value_head_dim, scratch.step);
  if (range.keep != nullptr) ZeroHidden(call, range);
  WithDType(value_rows.dtype, [&]<tensor::DType kDType>() { AddValuesOfStep<kDType>(call, value_rows.rows, seen); });
}

inline void Direct(const Attention& a, const DirectUnit& unit, std::int64_t first, std::int64_t last, float* partial,
                   std::byte* scratch_memory) {
  Carver carver(scratch_memory);
  DirectCall call{a, unit, DirectRows(a, unit), {}, CarveDirect(a, carver)};
  for (std::int64_t r = 0; r < call.rows; ++r) call.at[r] = DirectRowAt(a, unit, r);
  const DirectScratch& scratch = call.scratch;
  const std::int64_t packets = ValuePackets(a);
  ReadQueries(call);
  std::memset(scratch.zeros, 0, static_cast<std::size_t>(packets * kWidth) * sizeof(float));
  std::memset(scratch.output, 0, static_cast<std::size_t>(call.rows * packets * kWidth) * sizeof(float));
  std::memset(scratch.lane_sum, 0, static_cast<std::size_t>(call.rows * kWidth) * sizeof(float));
  for (std::int64_t i = 0; i < call.rows * kWidth; ++i) scratch.lane_max[i] = -kInfinity;
  for (std::int64_t r = 0; r < call.rows; ++r) scratch.max[r] = -kInfinity;

  RowReader keys(a.k, unit.batch, unit.kv_head);
  RowReader values(a.v, unit.batch, unit.kv_head);
  const std::int64_t end = VisibleKeys(a, unit.batch, last, QueryLength(a, unit.batch) - 1);
  for (std::int64_t key = Max(first, FirstVisible(a, unit.batch, 0)); key < end; key += kDirectKeys) {
    KeyTile range{key, Min(kDirectKeys, end - key), nullptr};
    if (!FindKept(a, unit.batch, key, range.keys, scratch.keep, range.keep)) continue;
    DirectStep(call, range, end, keys, values);
  }
  for (std::int64_t r = 0; r < call.rows; ++r) {
    const RowResult result{scratch.max[r], ei::predux(ei::pload<Packet>(scratch.lane_sum + r * kWidth)),
                           scratch.output + r * packets * kWidth};
    SaveRow(a, result, partial + r * PartialFloats(a));
  }
}

}  // namespace attnd::kernel::ATTND_KERNEL_TAG
