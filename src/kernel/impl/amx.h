// bf16 products with AMX. Packed keys and values already have the layout of AMX's second factor, rows of 16 pairs. The
// first factor is either the query rows that Begin has copied, or the rows of weights that WeighTileRow has stored.
#pragma once

#include "kernel/impl/amx_instructions.h"
#include "kernel/impl/tile.h"

namespace attnd::kernel::ATTND_KERNEL_TAG {

static_assert(kWidth == 16, "a row of a tile is a packet");
static_assert(kQueryTile % kAmxRows == 0 && kKeyTile % (2 * kAmxPairs) == 0);

// The tile registers: up to four tiles of sums side by side, the two factors, and the factors of the last, shorter
// step. That step uses smaller tile shapes instead of zero padding, so that loads stay within the packed memory.
inline constexpr int kTileSums = 4;
inline constexpr int kTileA = 4;
inline constexpr int kTileB = 5;
inline constexpr int kTileLastA = 6;
inline constexpr int kTileLastB = 7;
static_assert(kScoreCols <= kTileSums && kValueCols <= kTileSums);

// Keeps the registers configured during its lifetime. Configuring takes about 200 cycles, so one object serves all key
// tiles.
class TileUnit {
 public:
  TileUnit() { Configure(kAmxPairs); }
  ~TileUnit() { TileRelease(); }
  TileUnit(const TileUnit&) = delete;
  TileUnit& operator=(const TileUnit&) = delete;

  // Sets the number of pairs of the next products. Zeroes the registers if that changes their shapes.
  void SetPairs(std::int64_t pairs) {
    const std::int64_t last = pairs % kAmxPairs;
    if (last != 0 && last != last_) Configure(last);
  }

 private:
  void Configure(std::int64_t last) {
    TileConfig config;
    for (int tile = 0; tile < 8; ++tile) {
      config.rows[tile] = kAmxRows;
      config.row_bytes[tile] = 4 * kAmxPairs;
    }
    config.row_bytes[kTileLastA] = static_cast<std::uint16_t>(4 * last);
    config.rows[kTileLastB] = static_cast<std::uint8_t>(last);
    TileConfigure(config);
    last_ = last;
  }

  std::int64_t last_ = 0;
};

// A product of kAmxRows rows of `a` and some packets of columns of `b`: sums over `pairs` pairs of bf16 numbers.
struct TileProduct {
  const float* a;  // row r's pairs at a + r * a_stride
  std::int64_t a_stride;
  const float* b;  // pair k's columns at b + k * b_stride
  std::int64_t b_stride;
  std::int64_t pairs;
  float* sums;  // row r's sums at sums + r * sum_stride
  std::int64_t sum_stride;
};

// Calls step.operator()<column>() for each column.
template <int kCols, int kCol = 0, typename Step>
ATTND_INLINE void ForEachColumn(const Step& step) {
  if constexpr (kCol < kCols) {
    step.template operator()<kCol>();
    ForEachColumn<kCols, kCol + 1>(step);
  }
}

template <int kCols, int kA, int kB>
ATTND_INLINE void MultiplyStep(const TileProduct& p, std::int64_t pair) {
  TileLoad<kA>(p.a + pair, p.a_stride);
  ForEachColumn<kCols>([&]<int kCol>() {
    TileLoad<kB>(p.b + pair * p.b_stride + kCol * kWidth, p.b_stride);
    TileMultiplyAdd<kCol, kA, kB>();
  });
}

// Writes the products to `sums`, or adds them to it.
template <bool kAdd, int kCols>
void MultiplyTiles(const TileProduct& p) {
  ForEachColumn<kCols>([&]<int kCol>() {
    if constexpr (kAdd) {
      TileLoad<kCol>(p.sums + kCol * kWidth, p.sum_stride);
    } else {
      TileZero<kCol>();
    }
  });
  std::int64_t pair = 0;
  for (; pair + kAmxPairs <= p.pairs; pair += kAmxPairs) MultiplyStep<kCols, kTileA, kTileB>(p, pair);
  if (pair < p.pairs) MultiplyStep<kCols, kTileLastA, kTileLastB>(p, pair);
  ForEachColumn<kCols>([&]<int kCol>() { TileStore<kCol>(p.sums + kCol * kWidth, p.sum_stride); });
}

template <bool kAdd>
inline void MultiplyTiles(const TileProduct& p, std::int64_t packets) {
  static_assert(kTileSums == 4);
  switch (packets) {
    case 1:
      return MultiplyTiles<kAdd, 1>(p);
    case 2:
      return MultiplyTiles<kAdd, 2>(p);
    case 3:
      return MultiplyTiles<kAdd, 3>(p);
    default:
      return MultiplyTiles<kAdd, 4>(p);
  }
}

// Turns a row's products with up to kPanel keys into scores: applies scale, biases and masks. Then raises the row's
// running maximum. The row sees the columns `seen`, except those that `keep` hides.
template <bool kWindow>
ATTND_INLINE void FinishScores(float* scores, std::int64_t columns, float scale, const float* bias,
                               const float* key_bias, const ColumnRange& seen, const float* keep, float* lane_max) {
  Packet max = ei::pload<Packet>(lane_max);
  for (std::int64_t c = 0; c < columns; c += kWidth) {
    Packet score = ei::pmul(ei::pload<Packet>(scores + c), ei::pset1<Packet>(scale));
    if (bias != nullptr) score = ei::pmadd(ei::ploadu<Packet>(bias + c), ei::pset1<Packet>(kLog2E), score);
    if (kWindow && key_bias != nullptr)
      score = ei::pmadd(ei::pload<Packet>(key_bias + c), ei::pset1<Packet>(kLog2E), score);
    if (seen.last < columns) score = MaskScore(score, seen.last, static_cast<int>(c / kWidth));
    if (kWindow && seen.first > 0) score = HideFirst(score, seen.first, static_cast<int>(c / kWidth));
    if (keep != nullptr) score = KeepScore(score, keep + c);
    ei::pstore(scores + c, score);
    max = ei::pmax(max, score);
  }
  ei::pstore(lane_max, max);
}

// The AMX version of ScoreBlocks.
template <bool kWindow>
inline void ScoreByAmx(const TileContext& t, const KeyTile& keys, const RowRange& rows, TileUnit& unit) {
  const Attention& a = t.attention;
  const std::int64_t places = Places(Product::kBF16, a.head_dim);
  const std::int64_t count = rows.last - rows.first;
  const float* bias = BiasSlice(a, t.tile.batch, t.tile.head, t.tile.first_row + rows.first, count, keys.key,
                                RoundUp(keys.keys, kWidth), t.scratch.bias);
  const float* key_bias = kWindow ? KeyBiasSlice(a, t.tile.head, keys.key, keys.keys, t.scratch.key_bias) : nullptr;
  const float* panels = PanelsAt(t, keys, places);
  unit.SetPairs(places);
  for (std::int64_t c = 0; c < keys.keys; c += kPanel) {
    for (std::int64_t first = 0; first < count; first += kAmxRows) {
      const std::int64_t last = Min(count, first + kAmxRows);
      const std::int64_t end = t.scratch.visible[last - 1] - c;
      if (end <= 0 || (kWindow && t.scratch.hidden[first] - c >= Min(kPanel, end))) continue;
      const std::int64_t columns = Min(kPanel, RoundUp(end, kWidth));
      const auto in_block = [c](std::int64_t key) { return Max<std::int64_t>(0, Min(kPanel, key - c)); };
      MultiplyTiles<false>({t.state.copies + (rows.first + first) * places, places, panels + c * places, kPanel, places,
                            t.scratch.scores + first * kKeyTile + c, kKeyTile},
                           columns / kWidth);
      for (std::int64_t r = first; r < last; ++r) {
        FinishScores<kWindow>(t.scratch.scores + r * kKeyTile + c, columns, a.scale * kLog2E,
                              bias == nullptr ? nullptr : bias - r + c, key_bias == nullptr ? nullptr : key_bias + c,
                              {kWindow ? in_block(t.scratch.hidden[r]) : 0, in_block(t.scratch.visible[r])},
                              keys.keep == nullptr ? nullptr : keys.keep + c,
                              t.state.lane_max + (rows.first + r) * kWidth);
      }
    }
  }
}

// Adds the weighted values to the output of up to kAmxRows rows. Reads whole steps, including keys that a row does not
// see. The weights of those keys are zero, which hides a value only if it is finite. If one of their values is not
// finite, this function returns false and adds nothing.
template <bool kWindow>
inline bool AddValuesByAmx(const RowKeys& keys, std::int64_t rows, std::int64_t packets, std::int64_t packed_pairs,
                           ValueBlock block) {
  const std::int64_t first = kWindow ? keys.hidden[0] / (2 * kAmxPairs) * kAmxPairs : 0;
  block.keys = Min(packed_pairs, RoundUp(Places(Product::kBF16, keys.visible[rows - 1]), kAmxPairs));
  if (!FiniteWhereHidden<Product::kBF16, kWindow>(block, keys, rows, first, packets)) return false;
  block = FromPlace(block, first);
  MultiplyTiles<true>({block.weights, block.weight_stride, block.values, block.value_stride, block.keys, block.output,
                       block.output_stride},
                      packets);
  return true;
}

// The AMX version of AddValueBlocks.
template <bool kWindow>
inline void ValuesByAmx(const TileContext& t, const KeyTile& keys, const RowRange& rows, TileUnit& unit) {
  const std::int64_t packets = ValuePackets(t.attention);
  const std::int64_t packed_keys = Min(kKeyTile, t.packed.first_key + t.packed.keys - keys.key);
  const std::int64_t packed_pairs = Places(Product::kBF16, packed_keys);
  const std::int64_t count = rows.last - rows.first;
  for (std::int64_t r = count; r < RoundUp(count, kAmxRows); ++r) {
    std::memset(t.scratch.scores + r * kKeyTile, 0, static_cast<std::size_t>(2 * kKeyTile));
  }
  unit.SetPairs(packed_pairs);
  for (std::int64_t c = 0; c < ValueChunks(packets); ++c) {
    const ValueChunk chunk = ChunkAt(packets, c);
    const auto block = [&](std::int64_t row) {
      return ValueBlockAt<Product::kBF16>(t, keys, rows, row, chunk.first_packet);
    };
    for (std::int64_t first = 0; first < count; first += kAmxRows) {
      const std::int64_t last = Min(count, first + kAmxRows);
      const RowKeys seen = KeysOf(t, first);
      if ((kWindow ? seen.hidden[0] : 0) >= seen.visible[last - first - 1] ||
          AddValuesByAmx<kWindow>(seen, last - first, chunk.packets, packed_pairs, block(rows.first + first))) {
        continue;
      }
      for (std::int64_t r = first; r < last; ++r) {
        AddValueGroup<Product::kBF16, kWindow>(KeysOf(t, r), 1, chunk.packets, block(rows.first + r));
      }
    }
  }
}

template <bool kWindow>
inline void AdvanceOverByAmx(const TileContext& t, std::int64_t first_key, std::int64_t last_key) {
  TileUnit unit;
  ForEachBlock<Product::kBF16, kWindow>(t, first_key, last_key, [&](const KeyTile& keys, const RowRange& rows) {
    ScoreByAmx<kWindow>(t, keys, rows, unit);
    WeighBlocks<Product::kBF16, kWindow>(t, rows);
    ValuesByAmx<kWindow>(t, keys, rows, unit);
    AskFor(t.ahead);
  });
}

// Kernel::advance in a build with AMX.
inline void AdvanceByAmx(const Attention& a, const RowTile& tile, const PackedHead& packed, std::int64_t first_key,
                         std::int64_t last_key, Ahead& ahead, std::byte* state, std::byte* scratch) {
  const TileContext context = MakeContext(a, tile, packed, ahead, state, scratch);
  if (ProductOf(a) != Product::kBF16) return AdvanceWith<Product::kF32>(context, first_key, last_key);
  if (HasWindow(a)) return AdvanceOverByAmx<true>(context, first_key, last_key);
  AdvanceOverByAmx<false>(context, first_key, last_key);
}

}  // namespace attnd::kernel::ATTND_KERNEL_TAG
