// How an attention problem is cut into items. A pure function of the problem and the kernel.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernel/attention.h"
#include "kernel/kernel.h"

namespace attnd::schedule {

// The ways to compute a unit: all queries of the heads that share one (batch, key head).
enum class Way : std::uint8_t {
  kNothing,  // no query sees a key: zeros
  kDirect,   // few rows: keys and values read in place
  kLocal,    // keys and values packed block by block in the running thread's arena, all rows going along
  kShared,   // keys and values packed once in memory of their own, then tiles of rows that read them
};

struct UnitPlan {
  Way way;
  std::int64_t rows;        // queries times heads
  std::int64_t keys;        // those that some query sees
  std::int64_t splits;      // kDirect, kLocal: key ranges computed apart and merged; 1: straight into the output
  std::int64_t split_keys;  // keys of one of them (the last has the rest)
  double cost;              // multiply-adds
  const std::byte* values;  // kShared: where they are read in place; null: they are packed
};

enum class Step : std::uint8_t { kUnits, kSplit, kMerge, kPackKeys, kPackValues, kTile };

struct PlannedItem {
  Step step;
  std::int64_t unit;   // the first, for kUnits
  std::int64_t head;   // kTile
  std::int64_t first;  // kUnits: unit; kSplit, kPack...: key; kTile: query row
  std::int64_t last;   // one beyond
  double cost;
};

struct AttentionPlan {
  std::int64_t group;              // heads per key head
  std::int64_t local_keys;         // keys packed at a time in an arena
  std::vector<UnitPlan> units;     // [batch * kv_heads]
  std::vector<PlannedItem> items;  // those of kTile and kMerge of a unit stand together, after what unlocks them
};

AttentionPlan PlanAttention(const kernel::Attention& attention, const kernel::Kernel& kernel);

}  // namespace attnd::schedule
