// Short queries: few rows against many keys. Keys are read once and in place, so that memory bandwidth is the bound.
#pragma once

#include "kernel/impl/step_rows.h"
#include "kernel/impl/tile.h"

namespace attnd::kernel::ATTND_KERNEL_TAG {

struct DirectScratch {
  float* queries;   // [kDirectRows][head_dim padded to packets], times scale * log2(e)
  float* scores;    // [2][kDirectRows][kDirectKeys]: of one step, and the weights of the step before
  float* output;    // [kDirectRows][value packets * kWidth]
  float* lane_max;  // [kDirectRows][kWidth]
  float* lane_sum;  // [kDirectRows][kWidth]
  float* max;       // [kDirectRows]
  float* bias;      // BiasScratch of one row
  float* key_bias;  // [kDirectKeys]
  float* keep;      // [kDirectKeys]
  float* zeros;     // one row
  StepScratch keys;
  StepScratch values;
};

ATTND_INLINE std::int64_t PaddedDim(const Attention& a) { return RoundUp(a.head_dim, kWidth); }

inline DirectScratch CarveDirect(const Attention& a, Carver& carver) {
  const std::int64_t value_dim = ValuePackets(a) * kWidth;
  return {carver.Take<float>(kDirectRows * PaddedDim(a)),
          carver.Take<float>(2 * kDirectRows * kDirectKeys),
          carver.Take<float>(kDirectRows * value_dim),
          carver.Take<float>(kDirectRows * kWidth),
          carver.Take<float>(kDirectRows * kWidth),
          carver.Take<float>(kDirectRows),
          carver.Take<float>(BiasScratch(1, kDirectKeys)),
          carver.Take<float>(kDirectKeys),
          carver.Take<float>(kDirectKeys),
          carver.Take<float>(value_dim),
          CarveStep(PaddedDim(a), carver),
          CarveStep(value_dim, carver)};
}
inline std::size_t DirectScratchBytes(const Attention& a) {
  Carver carver(nullptr);
  CarveDirect(a, carver);
  return carver.used();
}

// A row of a direct call: a query of one of the heads that share the key head, of one batch entry.
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

// The rows of a call.
struct DirectCall {
  const Attention& attention;
  const DirectUnit& unit;
  std::int64_t rows;
  DirectRow at[kDirectRows];
  DirectScratch scratch;
};

// One step over some keys of a call: its scores, which become weights, and how its values are added.
struct DirectStep {
  KeyTile range;
  float* scores;                      // [kDirectRows][kDirectKeys]
  std::int64_t visible[kDirectRows];  // per row, as in RowKeys
  std::int64_t hidden[kDirectRows];
  std::int64_t group_end[kDirectRows];  // for the first row of a group that sees the same keys: its end
  StepRows keys;
  StepRows values;
};

inline void ReadQueries(const DirectCall& call) {
  const Attention& a = call.attention;
  const Packet scale = ei::pset1<Packet>(a.scale * kLog2E);
  const std::int64_t padded = PaddedDim(a);
  for (std::int64_t r = 0; r < call.rows; ++r) {
    const DirectRow& at = call.at[r];
    RowReader reader(a.q, at.batch, at.head);
    const float* row = reader.Floats(at.query, a.head_dim, call.scratch.keys.gather);
    float* to = call.scratch.queries + r * padded;
    std::memcpy(to, row, static_cast<std::size_t>(a.head_dim) * sizeof(float));
    std::memset(to + a.head_dim, 0, static_cast<std::size_t>(padded - a.head_dim) * sizeof(float));
    for (std::int64_t d = 0; d < padded; d += kWidth) {
      ei::pstore(to + d, ei::pmul(ei::pload<Packet>(to + d), scale));
    }
  }
}

// Scores of every row against the keys [first, first + kWidth) of a step.
template <tensor::DType kDType>
inline void MultiplyKeys(const DirectCall& call, const DirectStep& step, std::int64_t first) {
  const std::int64_t dim = PaddedDim(call.attention);
  const std::byte* at[kWidth];
  for (int i = 0; i < kWidth; ++i) {
    const std::byte* const* key = step.keys.rows + Min(first + i, step.range.keys - 1);
    at[i] = key[0];
    AskForBytes(key[kStepAhead], dim * ElementSize(kDType));
  }
  const float* query = call.scratch.queries;
  float* scores = step.scores + first;
  ei::pstore(scores, ScoreKeys<kDType, true>(query, at, dim));
  for (std::int64_t r = 1; r < call.rows; ++r) {
    ei::pstore(scores + r * kDirectKeys, ScoreKeys<kDType, false>(query + r * dim, at, dim));
  }
}

// Adds the values of the keys [first, first + kWidth) of a step.
template <tensor::DType kDType>
inline void AddValuesOf(const DirectCall& call, const DirectStep& step, std::int64_t first) {
  const std::int64_t packets = ValuePackets(call.attention);
  for (std::int64_t r = 0; r < call.rows; r = step.group_end[r]) {
    const std::int64_t begin = Max(first, step.hidden[r]);
    const std::int64_t count = Min(first + kWidth, step.visible[r]) - begin;
    if (count <= 0) continue;
    for (std::int64_t packet = 0; packet < packets; packet += kValueCols) {
      AddStepValues<kDType>(
          {step.scores + r * kDirectKeys + begin, kDirectKeys, step.values.rows + begin, packet * kWidth, count,
           call.scratch.output + (r * packets + packet) * kWidth, packets * kWidth},
          step.group_end[r] - r, Min<std::int64_t>(kValueCols, packets - packet));
    }
  }
}

// Interleaves multiplying the keys of `step` with adding the values of `before`, the step before it: two memory streams
// are read faster side by side than one after the other. Either may be null.
inline void ReadSteps(const DirectCall& call, const DirectStep* step, const DirectStep* before) {
  const std::int64_t keys = step == nullptr ? 0 : step->range.keys;
  const std::int64_t values = before == nullptr ? 0 : before->range.keys;
  for (std::int64_t c = 0; c < Max(keys, values); c += kWidth) {
    if (c < keys) {
      WithDType(step->keys.dtype, [&]<tensor::DType kDType>() { MultiplyKeys<kDType>(call, *step, c); });
    }
    if (c < values) {
      WithDType(before->values.dtype, [&]<tensor::DType kDType>() { AddValuesOf<kDType>(call, *before, c); });
    }
  }
}

// Adds biases, applies masks and raises the running maxima.
inline void MaskScores(const DirectCall& call, const DirectStep& step) {
  const Attention& a = call.attention;
  const DirectScratch& scratch = call.scratch;
  const KeyTile& range = step.range;
  const std::int64_t columns = RoundUp(range.keys, kWidth);
  const Packet log2e = ei::pset1<Packet>(kLog2E);
  for (std::int64_t r = 0; r < call.rows; ++r) {
    const DirectRow& at = call.at[r];
    const float* bias = BiasSlice(a, at.batch, at.head, at.query, 1, range.key, columns, scratch.bias);
    const float* key_bias = KeyBiasSlice(a, at.head, range.key, range.keys, scratch.key_bias);
    float* scores = step.scores + r * kDirectKeys;
    Packet max = ei::pload<Packet>(scratch.lane_max + r * kWidth);
    for (std::int64_t c = 0; c < columns; c += kWidth) {
      Packet score = ei::pload<Packet>(scores + c);
      if (bias != nullptr) score = ei::pmadd(ei::ploadu<Packet>(bias + c), log2e, score);
      if (key_bias != nullptr) score = ei::pmadd(ei::pload<Packet>(key_bias + c), log2e, score);
      if (step.visible[r] - c < kWidth) score = MaskScore(score, Max<std::int64_t>(0, step.visible[r] - c), 0);
      if (step.hidden[r] > c) score = HideFirst(score, Min(kWidth, step.hidden[r] - c), 0);
      if (range.keep != nullptr) score = KeepScore(score, range.keep + c);
      ei::pstore(scores + c, score);
      max = ei::pmax(max, score);
    }
    ei::pstore(scratch.lane_max + r * kWidth, max);
  }
}

// Turns the scores of a step into weights.
inline void Weigh(const DirectCall& call, const DirectStep& step) {
  const DirectScratch& scratch = call.scratch;
  const std::int64_t packets = ValuePackets(call.attention);
  for (std::int64_t r = 0; r < call.rows; ++r) {
    const SoftmaxRow row{scratch.lane_max + r * kWidth, scratch.lane_sum + r * kWidth, scratch.max + r,
                         scratch.output + r * packets * kWidth, packets};
    RaiseMax(row);
    WeighTileRow<Product::kF32>(step.scores + r * kDirectKeys, {step.hidden[r], step.visible[r]},
                                {step.hidden[r] / kWidth * kWidth, step.visible[r]}, row);
  }
}

// Sets which of the step's keys each row sees and groups rows that see the same. `end` is where the call's keys end.
inline void FindSeen(const DirectCall& call, std::int64_t end, DirectStep& step) {
  const Attention& a = call.attention;
  const KeyTile& range = step.range;
  std::int64_t first = 0;  // first row of the group
  for (std::int64_t r = 0; r < call.rows; ++r) {
    const DirectRow& at = call.at[r];
    step.visible[r] = Max<std::int64_t>(0, Min(range.keys, VisibleKeys(a, at.batch, end, at.query) - range.key));
    step.hidden[r] = Max<std::int64_t>(0, Min(step.visible[r], FirstVisible(a, at.batch, at.query) - range.key));
    const bool like_first = step.visible[r] == step.visible[first] && step.hidden[r] == step.hidden[first];
    if (!like_first || r - first == kStepRows) first = r;
    step.group_end[first] = r + 1;
  }
}

// The rows of values, with zeros in place of those that key bits hide: their weights are zero, and zero times NaN is
// NaN.
inline StepRows FindValues(const DirectCall& call, const KeyTile& range, std::int64_t end, RowReader& reader) {
  const Attention& a = call.attention;
  const StepScratch& scratch = call.scratch.values;
  const StepRows rows = FindStepRows(a.v, reader, range.key, range.keys, end, a.value_head_dim, scratch);
  for (std::int64_t r = 0; range.keep != nullptr && r < range.keys; ++r) {
    if (KeyBit(a, call.unit.batch, range.key + r)) continue;
    scratch.rows[r] = reinterpret_cast<const std::byte*>(call.scratch.zeros);
  }
  return rows;
}

// Resets the running state for a new range.
inline void BeginRange(const DirectCall& call) {
  const DirectScratch& scratch = call.scratch;
  const std::int64_t width = ValuePackets(call.attention) * kWidth;
  std::memset(scratch.output, 0, static_cast<std::size_t>(call.rows * width) * sizeof(float));
  std::memset(scratch.lane_sum, 0, static_cast<std::size_t>(call.rows * kWidth) * sizeof(float));
  for (std::int64_t i = 0; i < call.rows * kWidth; ++i) scratch.lane_max[i] = -kInfinity;
  for (std::int64_t r = 0; r < call.rows; ++r) scratch.max[r] = -kInfinity;
}

// Writes a range's partial result.
inline void SaveRange(const DirectCall& call, float* partial) {
  const Attention& a = call.attention;
  const DirectScratch& scratch = call.scratch;
  for (std::int64_t r = 0; r < call.rows; ++r) {
    const RowResult result{scratch.max[r], ei::predux(ei::pload<Packet>(scratch.lane_sum + r * kWidth)),
                           scratch.output + r * ValuePackets(a) * kWidth};
    SaveRow(a, result, partial + r * PartialFloats(a));
  }
}

// The values of a range's last step are added while the first keys of the next range are read.
inline void Direct(const Attention& a, const DirectUnit& unit, std::int64_t first, std::int64_t last,
                   std::int64_t range_keys, float* partials, std::byte* scratch_memory) {
  Carver carver(scratch_memory);
  DirectCall call{a, unit, DirectRows(a, unit), {}, CarveDirect(a, carver)};
  for (std::int64_t r = 0; r < call.rows; ++r) call.at[r] = DirectRowAt(a, unit, r);
  const DirectScratch& scratch = call.scratch;
  ReadQueries(call);
  std::memset(scratch.zeros, 0, static_cast<std::size_t>(ValuePackets(a) * kWidth) * sizeof(float));

  RowReader keys(a.k, unit.batch, unit.kv_head);
  RowReader values(a.v, unit.batch, unit.kv_head);
  const std::int64_t end = VisibleKeys(a, unit.batch, last, QueryLength(a, unit.batch) - 1);
  DirectStep steps[2];  // the current one and the one before
  DirectStep* before = nullptr;
  std::int64_t open = first;  // begin of the range whose results are in the scratch memory
  const auto save_ranges = [&](std::int64_t until) {
    for (; open + range_keys <= until; open += range_keys) {
      SaveRange(call, partials);
      BeginRange(call);
      partials += call.rows * PartialFloats(a);
    }
  };
  BeginRange(call);
  std::int64_t next = Max(first, FirstVisible(a, unit.batch, 0));
  while (next < end) {
    const std::int64_t key = next;
    const std::int64_t range_end = key + range_keys - (key - first) % range_keys;
    next = Min(key + kDirectKeys, Min(range_end, end));
    DirectStep& step = steps[before == steps ? 1 : 0];
    step.range = {key, next - key, nullptr};
    if (!FindKept(a, unit.batch, key, step.range.keys, scratch.keep, step.range.keep)) continue;
    step.scores = scratch.scores + (&step - steps) * kDirectRows * kDirectKeys;
    step.keys = FindStepRows(a.k, keys, key, step.range.keys, end, a.head_dim, scratch.keys);
    FindSeen(call, end, step);
    ReadSteps(call, &step, before);
    save_ranges(key);
    MaskScores(call, step);
    Weigh(call, step);
    step.values = FindValues(call, step.range, end, values);
    before = &step;
  }
  ReadSteps(call, nullptr, before);
  save_ranges(last + range_keys - 1);
}

}  // namespace attnd::kernel::ATTND_KERNEL_TAG
