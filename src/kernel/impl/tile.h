// A tile of query rows against packed keys and values: begin, advance, finish or save.
#pragma once

#include "kernel/impl/bias.h"
#include "kernel/impl/key_bits.h"
#include "kernel/impl/pack.h"
#include "kernel/impl/score.h"
#include "kernel/impl/softmax.h"
#include "kernel/impl/values.h"

namespace attnd::kernel::ATTND_KERNEL_TAG {

struct TileState {
  const std::byte** queries;  // [kQueryTile] rows of head_dim floats, or of pairs: in place, or in `copies`
  float* copies;              // [kQueryTile][places of head_dim]; AMX copies all rows here
  float* output;              // [kQueryTile][value packets * kWidth]
  float* lane_max;            // [kQueryTile][kWidth]
  float* lane_sum;            // [kQueryTile][kWidth]
  float* max;                 // [kQueryTile]
};
inline TileState CarveState(const Attention& a, Carver& carver) {
  return {carver.Take<const std::byte*>(kQueryTile),
          carver.Take<float>(kQueryTile * a.head_dim),
          carver.Take<float>(kQueryTile * ValuePackets(a) * kWidth),
          carver.Take<float>(kQueryTile * kWidth),
          carver.Take<float>(kQueryTile * kWidth),
          carver.Take<float>(kQueryTile)};
}
inline std::size_t StateBytes(const Attention& a) {
  Carver carver(nullptr);
  CarveState(a, carver);
  return carver.used();
}

struct TileScratch {
  float* scores;          // [kMostRows][kKeyTile]
  float* bias;            // BiasScratch
  float* key_bias;        // [kKeyTile]
  float* keep;            // [kKeyTile]
  std::int64_t* visible;  // [kMostRows]: end of the key tile's keys that the row sees
  std::int64_t* hidden;   // [kMostRows]: begin of them
};
inline TileScratch CarveScratch(Carver& carver) {
  return {carver.Take<float>(kMostRows * kKeyTile),
          carver.Take<float>(BiasScratch(kMostRows, kKeyTile)),
          carver.Take<float>(kKeyTile),
          carver.Take<float>(kKeyTile),
          carver.Take<std::int64_t>(kMostRows),
          carver.Take<std::int64_t>(kMostRows)};
}
inline std::size_t ScratchBytes(const Attention& a) {
  Carver tile(nullptr);
  CarveScratch(tile);
  Carver pack(nullptr);
  CarvePack(a, pack);
  return Max(tile.used(), pack.used());
}

// A query row in the form that the products take; in place if it already has that form.
ATTND_INLINE const std::byte* FindQuery(const Attention& a, RowReader& reader, std::int64_t row, float* copy,
                                        const PackScratch& work) {
  auto* bytes = reinterpret_cast<std::byte*>(copy);
  if (ProductOf(a) == Product::kBF16) {
    return reinterpret_cast<const std::byte*>(FindPairs(reader, row, a.head_dim, copy));
  }
  if (a.q.dtype == tensor::DType::kF32) return reader.Bytes(row, 4 * a.head_dim, bytes);
  Widen(reader.Bytes(row, 2 * a.head_dim, reinterpret_cast<std::byte*>(work.rows)), a.q.dtype, a.head_dim, copy);
  return bytes;
}

inline void Begin(const Attention& a, const RowTile& tile, std::byte* state_memory, std::byte* scratch_memory) {
  Carver carver(state_memory);
  const TileState state = CarveState(a, carver);
  Carver scratch(scratch_memory);
  const PackScratch work = CarvePack(a, scratch);
  RowReader reader(a.q, tile.batch, tile.head);
  const std::int64_t places = Places(ProductOf(a), a.head_dim);
  const bool copy_all = kHasAmx && ProductOf(a) == Product::kBF16;
  for (std::int64_t r = 0; r < tile.rows; ++r) {
    float* copy = state.copies + r * places;
    state.queries[r] = FindQuery(a, reader, tile.first_row + r, copy, work);
    if (copy_all && state.queries[r] != reinterpret_cast<const std::byte*>(copy)) {
      std::memcpy(copy, state.queries[r], static_cast<std::size_t>(4 * places));
    }
  }
  const std::int64_t padded_rows = RoundUp(tile.rows, kScoreRows);
  for (std::int64_t r = tile.rows; r < padded_rows; ++r) state.queries[r] = state.queries[tile.rows - 1];
  const std::int64_t output_rows = kHasAmx ? RoundUp(tile.rows, kAmxRows) : tile.rows;
  std::memset(state.output, 0, static_cast<std::size_t>(output_rows * ValuePackets(a) * kWidth) * sizeof(float));
  std::memset(state.lane_sum, 0, static_cast<std::size_t>(tile.rows * kWidth) * sizeof(float));
  const Packet none = ei::pset1<Packet>(-kInfinity);
  for (std::int64_t r = 0; r < padded_rows; ++r) ei::pstore(state.lane_max + r * kWidth, none);
  for (std::int64_t r = 0; r < tile.rows; ++r) state.max[r] = -kInfinity;
}

// The keys [key, key + keys) of a key tile; at most kKeyTile keys.
struct KeyTile {
  std::int64_t key;
  std::int64_t keys;
  const float* keep;  // as KeepScore takes it; null if key bits hide none of them
};

// The rows [first, last) of a tile; at most kRowBlock rows, `first` a multiple of kRowBlock.
struct RowRange {
  std::int64_t first;
  std::int64_t last;
};

// For some rows of a block, the keys of a key tile that each row sees: [hidden, visible).
struct RowKeys {
  const std::int64_t* hidden;
  const std::int64_t* visible;
};

// What all steps of one tile's advance over a packed head share.
struct TileContext {
  const Attention& attention;
  const RowTile& tile;
  const PackedHead& packed;
  Ahead& ahead;
  TileState state;
  TileScratch scratch;
};
ATTND_INLINE TileContext MakeContext(const Attention& a, const RowTile& tile, const PackedHead& packed, Ahead& ahead,
                                     std::byte* state_memory, std::byte* scratch_memory) {
  Carver state(state_memory);
  Carver scratch(scratch_memory);
  return {a, tile, packed, ahead, CarveState(a, state), CarveScratch(scratch)};
}

// The entries for the block's rows from `row` on.
ATTND_INLINE RowKeys KeysOf(const TileContext& t, std::int64_t row) {
  return {t.scratch.hidden + row, t.scratch.visible + row};
}

// Prefetches the next few cache lines of what the caller will read.
inline void AskFor(Ahead& ahead) {
  constexpr int kLines = 32;
  int lines = 0;
  for (Ahead::Range& range : ahead.ranges) {
    for (; range.at < range.end; range.at += 64) {
      if (lines++ == kLines) return;
      __builtin_prefetch(range.at, 0, 2);
    }
  }
}

// The first panel of packed keys of a key tile, which begins at a multiple of kPanel from first_key.
ATTND_INLINE const float* PanelsAt(const TileContext& t, const KeyTile& keys, std::int64_t places) {
  return reinterpret_cast<const float*>(t.packed.keys_data) + (keys.key - t.packed.first_key) * places;
}

// The functions below are compiled twice. With `kWindow` (HasWindow), the keys that a row sees may begin after key 0 of
// a key tile, and keys may have biases. Without it, all rows see keys from key 0 on, scratch.hidden is not used, and
// the window costs nothing.

// Writes the scores of a block of rows with a key tile to the scratch memory and raises the running maxima.
template <Product kProduct, bool kWindow>
inline void ScoreBlocks(const TileContext& t, const KeyTile& keys, const RowRange& rows) {
  const Attention& a = t.attention;
  const std::int64_t* row_visible = t.scratch.visible;
  const std::int64_t* row_hidden = t.scratch.hidden;
  const std::int64_t count = RoundUp(rows.last - rows.first, kScoreRows);
  const std::int64_t places = Places(kProduct, a.head_dim);
  const float* bias = BiasSlice(a, t.tile.batch, t.tile.head, t.tile.first_row + rows.first, count, keys.key,
                                RoundUp(keys.keys, kWidth), t.scratch.bias);
  const float* key_bias = kWindow ? KeyBiasSlice(a, t.tile.head, keys.key, keys.keys, t.scratch.key_bias) : nullptr;
  const float* panels = PanelsAt(t, keys, places);
  for (std::int64_t c = 0; c < keys.keys; c += kPanel) {
    for (std::int64_t r = 0; r < count; r += kScoreRows) {
      // Both ends of what a row sees grow with the row. So the last row decides where computing ends and whether
      // leading keys need a mask; the first row decides whether the panel is skipped and whether trailing keys need a
      // mask.
      const std::int64_t end = Min(keys.keys, row_visible[r + kScoreRows - 1]) - c;
      if (end <= 0 || (kWindow && row_hidden[r] - c >= Min(kPanel, end))) continue;
      const std::int64_t columns = Min(kPanel, RoundUp(end, kWidth));
      std::int64_t visible[kScoreRows], hidden[kScoreRows];
      const bool masked = row_visible[r] - c < columns;
      const bool masked_first = kWindow && row_hidden[r + kScoreRows - 1] - c > 0;
      if (masked) {
        for (int i = 0; i < kScoreRows; ++i) visible[i] = row_visible[r + i] - c;
      }
      if (masked_first) {
        for (int i = 0; i < kScoreRows; ++i) hidden[i] = row_hidden[r + i] - c;
      }
      const ScoreBlock block{t.state.queries + rows.first + r,
                             panels + c * places,
                             places,
                             a.scale * kLog2E,
                             bias == nullptr ? nullptr : bias - r + c,
                             key_bias == nullptr ? nullptr : key_bias + c,
                             masked ? visible : nullptr,
                             masked_first ? hidden : nullptr,
                             keys.keep == nullptr ? nullptr : keys.keep + c,
                             t.scratch.scores + r * kKeyTile + c,
                             kKeyTile,
                             t.state.lane_max + (rows.first + r) * kWidth};
      ComputeScores<kProduct, kWindow>(block, columns / kWidth);
      AskFor(t.ahead);
    }
  }
}

// Turns the scores of a block of rows into weights. Rows that share a block of values read weights from the first key
// of the first row to the last key of the last row, so weights of keys that a row does not see must be zero there.
template <Product kProduct, bool kWindow>
inline void WeighBlocks(const TileContext& t, const RowRange& rows) {
  const std::int64_t packets = ValuePackets(t.attention);
  const std::int64_t count = rows.last - rows.first;
  const auto row = [&](std::int64_t r) {
    const std::int64_t at = rows.first + r;
    return SoftmaxRow{t.state.lane_max + at * kWidth, t.state.lane_sum + at * kWidth, t.state.max + at,
                      t.state.output + at * packets * kWidth, packets};
  };
  constexpr std::int64_t kSharing = kUsesAmx<kProduct> ? kAmxRows : kValueRows;
  constexpr std::int64_t kKeysRead = kUsesAmx<kProduct> ? 2 * kAmxPairs : 1;
  constexpr std::int64_t kFirstRead = Max(kKeysRead, kWidth);
  // Raise all maxima first, so that their chains of dependent shuffles overlap.
  for (std::int64_t r = 0; r < count; ++r) RaiseMax(row(r));
  for (std::int64_t r = 0; r < count; ++r) {
    const std::int64_t first = r / kSharing * kSharing;
    const std::int64_t last = Min(count, first + kSharing) - 1;
    const ColumnRange seen{kWindow ? t.scratch.hidden[r] : 0, t.scratch.visible[r]};
    const ColumnRange read{kWindow ? t.scratch.hidden[first] / kFirstRead * kFirstRead : 0,
                           RoundUp(t.scratch.visible[last], kKeysRead)};
    WeighTileRow<kProduct>(t.scratch.scores + r * kKeyTile, seen, read, row(r));
  }
}

// Number of places that `keys` keys fill completely.
template <Product kProduct>
ATTND_INLINE constexpr std::int64_t WholePlaces(std::int64_t keys) {
  return kProduct == Product::kBF16 ? keys / 2 : keys;
}

// Whether all values are finite in those places of [first, block.keys) that not all of the rows see.
template <Product kProduct, bool kWindow>
ATTND_INLINE bool FiniteWhereHidden(const ValueBlock& block, const RowKeys& keys, std::int64_t rows, std::int64_t first,
                                    std::int64_t packets) {
  if (!kWindow) {
    return AllFinite<kProduct>(block, WholePlaces<kProduct>(keys.visible[0]), block.keys, packets);
  }
  const std::int64_t seen_first = Places(kProduct, keys.hidden[rows - 1]);
  const std::int64_t seen_last = WholePlaces<kProduct>(keys.visible[0]);
  if (seen_first >= seen_last) return AllFinite<kProduct>(block, first, block.keys, packets);
  return AllFinite<kProduct>(block, first, seen_first, packets) &&
         AllFinite<kProduct>(block, seen_last, block.keys, packets);
}

// Adds the values of the keys [first, last) to one row and uses no other values: the row may see one key of a pair.
template <Product kProduct>
inline void AddValueRow(ValueBlock block, std::int64_t first, std::int64_t last, std::int64_t packets) {
  if (first >= last) return;
  if (kProduct == Product::kBF16 && first % 2 != 0) AddOneOfPair<false>(block, first / 2, packets);
  const std::int64_t begin = Places(kProduct, first);
  block.keys = Max(begin, WholePlaces<kProduct>(last));
  AddValues<kProduct>(FromPlace(block, begin), 1, packets);
  if (kProduct == Product::kBF16 && last % 2 != 0) AddOneOfPair<true>(block, last / 2, packets);
}

// Adds the values of a group of at most kValueRows rows. All rows take the keys from the first that the first row sees
// to the last that the last row sees, with zero weights for keys that they do not see. Zero times an infinite value is
// NaN, so if one of those values is not finite, each row is added alone.
template <Product kProduct, bool kWindow>
inline void AddValueGroup(const RowKeys& keys, std::int64_t rows, std::int64_t packets, ValueBlock block) {
  block.keys = Places(kProduct, keys.visible[rows - 1]);
  const std::int64_t first = kWindow ? WholePlaces<kProduct>(keys.hidden[0]) : 0;
  if (first >= block.keys) return;
  if (FiniteWhereHidden<kProduct, kWindow>(block, keys, rows, first, packets)) {
    return AddValues<kProduct>(kWindow ? FromPlace(block, first) : block, rows, packets);
  }
  for (std::int64_t r = 0; r < rows; ++r) {
    AddValueRow<kProduct>(block, kWindow ? keys.hidden[r] : 0, keys.visible[r], packets);
    block.weights += block.weight_stride;
    block.output += block.output_stride;
  }
}

// The values of one chunk for the rows from `row` on, in the block `rows`. The caller sets `keys` of the result.
template <Product kProduct>
ATTND_INLINE ValueBlock ValueBlockAt(const TileContext& t, const KeyTile& keys, const RowRange& rows, std::int64_t row,
                                     std::int64_t first_packet) {
  const std::int64_t stride = ValuePackets(t.attention) * kWidth;
  const float* values = reinterpret_cast<const float*>(t.packed.values_data) +
                        Places(kProduct, keys.key - t.packed.first_key) * stride + first_packet * kWidth;
  float* output = t.state.output + row * stride + first_packet * kWidth;
  return {t.scratch.scores + (row - rows.first) * kKeyTile, kKeyTile, values, stride, 0, output, stride};
}

// Adds the weighted values of a key tile to the outputs of a block of rows.
template <Product kProduct, bool kWindow>
inline void AddValueBlocks(const TileContext& t, const KeyTile& keys, const RowRange& rows) {
  const std::int64_t packets = ValuePackets(t.attention);
  for (std::int64_t c = 0; c < ValueChunks(packets); ++c) {
    const ValueChunk chunk = ChunkAt(packets, c);
    for (std::int64_t r = rows.first; r < rows.last; r += kValueRows) {
      const std::int64_t group = Min<std::int64_t>(kValueRows, rows.last - r);
      AddValueGroup<kProduct, kWindow>(KeysOf(t, r - rows.first), group, chunk.packets,
                                       ValueBlockAt<kProduct>(t, keys, rows, r, chunk.first_packet));
      AskFor(t.ahead);
    }
  }
}

// Sets scratch.visible, and with kWindow scratch.hidden, for each row of a block, in whole groups of kScoreRows;
// padding rows copy the tile's last row. Both are equal for a row that sees none of the key tile's keys. `end` is where
// the keys end. Returns false if no row sees any.
template <bool kWindow>
inline bool FindVisible(const TileContext& t, const KeyTile& keys, const RowRange& rows, std::int64_t end) {
  bool any = false;
  for (std::int64_t r = 0; r < RoundUp(rows.last - rows.first, kScoreRows); ++r) {
    const std::int64_t row = t.tile.first_row + Min(rows.first + r, t.tile.rows - 1);
    if constexpr (!kWindow) {
      const std::int64_t last = VisibleKeys<false>(t.attention, t.tile.batch, end, row) - keys.key;
      t.scratch.visible[r] = Max<std::int64_t>(0, Min(keys.keys, last));
      continue;
    }
    const std::int64_t last = VisibleKeys(t.attention, t.tile.batch, end, row) - keys.key;
    const std::int64_t first = FirstVisible(t.attention, t.tile.batch, row) - keys.key;
    t.scratch.visible[r] = Max<std::int64_t>(0, Min(keys.keys, last));
    t.scratch.hidden[r] = Max<std::int64_t>(0, Min(t.scratch.visible[r], first));
    any = any || t.scratch.hidden[r] < t.scratch.visible[r];
  }
  return kWindow ? any : t.scratch.visible[rows.last - rows.first - 1] > 0;
}

// Calls step(keys, rows) for every key tile of [first_key, last_key) and every block of rows in which some row sees one
// of its keys. FindVisible has then set what each row sees.
template <Product kProduct, bool kWindow, typename Step>
ATTND_INLINE void ForEachBlock(const TileContext& t, std::int64_t first_key, std::int64_t last_key, const Step& step) {
  const std::int64_t end = VisibleKeys(t.attention, t.tile.batch, last_key, t.tile.first_row + t.tile.rows - 1);
  const std::int64_t unseen = kWindow ? FirstVisible(t.attention, t.tile.batch, t.tile.first_row) - first_key : 0;
  const std::int64_t begin = first_key + Max<std::int64_t>(0, unseen) / kPanel * kPanel;
  for (std::int64_t key = begin; key < end; key += kKeyTile) {
    KeyTile keys{key, Min(kKeyTile, end - key), nullptr};
    if (!FindKept(t.attention, t.tile.batch, key, keys.keys, t.scratch.keep, keys.keep)) continue;
    for (std::int64_t first = 0; first < t.tile.rows; first += kRowBlock<kProduct>) {
      const RowRange rows{first, Min(t.tile.rows, first + kRowBlock<kProduct>)};
      if (FindVisible<kWindow>(t, keys, rows, end)) step(keys, rows);
    }
  }
}

template <Product kProduct, bool kWindow>
inline void AdvanceOver(const TileContext& t, std::int64_t first_key, std::int64_t last_key) {
  ForEachBlock<kProduct, kWindow>(t, first_key, last_key, [&t](const KeyTile& keys, const RowRange& rows) {
    ScoreBlocks<kProduct, kWindow>(t, keys, rows);
    WeighBlocks<kProduct, kWindow>(t, rows);
    AddValueBlocks<kProduct, kWindow>(t, keys, rows);
  });
}

template <Product kProduct>
inline void AdvanceWith(const TileContext& t, std::int64_t first_key, std::int64_t last_key) {
  if (HasWindow(t.attention)) return AdvanceOver<kProduct, true>(t, first_key, last_key);
  AdvanceOver<kProduct, false>(t, first_key, last_key);
}

// Kernel::advance of a build without AMX.
inline void Advance(const Attention& a, const RowTile& tile, const PackedHead& packed, std::int64_t first_key,
                    std::int64_t last_key, Ahead& ahead, std::byte* state, std::byte* scratch) {
  const TileContext context = MakeContext(a, tile, packed, ahead, state, scratch);
  if constexpr (kHasBf16) {
    if (ProductOf(a) == Product::kBF16) return AdvanceWith<Product::kBF16>(context, first_key, last_key);
  }
  AdvanceWith<Product::kF32>(context, first_key, last_key);
}

// The row's natural log-sum-exp, from its maximum (base 2) and sum.
inline float LogSumExp(const Attention& a, std::int64_t head, float max, float sum) {
  if (sum == 0.0f) return -kInfinity;
  const double constant = a.bias == nullptr ? 0.0 : static_cast<double>(a.bias->constant[head]);
  constexpr double kLn2 = 0.69314718055994530942;
  return static_cast<float>(static_cast<double>(max) * kLn2 + __builtin_log(static_cast<double>(sum)) + constant);
}

// The result of a row over all its keys: maximum (base 2), sum and unnormalised output.
struct RowResult {
  float max;
  float sum;
  const float* output;
};
ATTND_INLINE RowResult ResultOf(const Attention& a, const TileState& state, std::int64_t row) {
  return {state.max[row], ei::predux(ei::pload<Packet>(state.lane_sum + row * kWidth)),
          state.output + row * ValuePackets(a) * kWidth};
}

inline void Finish(const Attention& a, const RowTile& tile, std::byte* state_memory) {
  Carver carver(state_memory);
  const TileState state = CarveState(a, carver);
  for (std::int64_t r = 0; r < tile.rows; ++r) {
    const RowResult result = ResultOf(a, state, r);
    const std::int64_t row = tile.first_row + r;
    const float factor = result.sum == 0.0f ? 0.0f : 1.0f / result.sum;
    WriteRow(result.output, factor, a.value_head_dim, a.out.dtype, OutputRow(a, tile.batch, tile.head, row));
    if (a.log_sum_exp == nullptr) continue;
    LogSumExpOf(a, tile.batch, tile.head, row) = LogSumExp(a, tile.head, result.max, result.sum);
  }
}

// Writes one row's partial result.
inline void SaveRow(const Attention& a, const RowResult& result, float* partial) {
  partial[0] = result.max;
  partial[1] = result.sum;
  std::memcpy(partial + 2, result.output, static_cast<std::size_t>(a.value_head_dim) * sizeof(float));
}

inline void Save(const Attention& a, const RowTile& tile, const std::byte* state_memory, float* partial) {
  Carver carver(const_cast<std::byte*>(state_memory));
  const TileState state = CarveState(a, carver);
  for (std::int64_t r = 0; r < tile.rows; ++r) {
    SaveRow(a, ResultOf(a, state, r), partial + r * PartialFloats(a));
  }
}

}  // namespace attnd::kernel::ATTND_KERNEL_TAG
