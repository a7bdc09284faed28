// How an attention problem is cut into items for threads.
//
// The problem. The work of a call ranges from one row against one key to billions of (query, key) pairs. Too few items
// leave threads idle; too many cost more in hand-over than they compute. Keys and values also need packing before tiles
// of rows can use them, and where they are packed decides the memory that a call takes.
//
// A unit is all queries of all heads that share one (batch entry, key head): they read the same keys and values, and
// units share nothing with each other. Each unit is computed in one of four ways:
//
//   kNothing  No query sees a key: the output is zeros.
//   kDirect   At most Kernel::direct_rows rows (queries times heads; decoding). Each key is used too few times to pay
//             for packing, so keys and values are read where they lie and memory bandwidth is the bound. Long ones are
//             split along the keys.
//   kLocal    One thread packs a block of keys and values in its arena (512 KiB), advances all rows over it, and packs
//             the next block over it. Nothing is allocated and no thread waits for another. For units that cost at most
//             1/64 of the call (never below 2^21 multiply-adds, never above 2^24), and for at most 192 rows against at
//             least four times as many keys, whose one pass over the keys can be split. The running softmax of all
//             rows must fit in 2 MiB.
//   kShared   All keys and values are packed once into memory that the call allocates, in parallel; then each tile of
//             rows is an item of its own. For everything larger.
//
// Splitting a unit along its keys (kDirect, kLocal) gives one partial result (maximum, sum, output) per key range, and
// an item that merges them. The partial results of a call take at most 4 MiB.
//
// Steps and what unlocks them. Items run in any order that keeps to this:
//
//   kUnits                   whole units, one after another until they cost 2^20 multiply-adds: nothing unlocks them
//   kSplit                -> kMerge  when all splits of the unit have run
//   kPackKeys, kPackValues -> kTile  when all packing of the unit is done
//
// Costs are in multiply-adds: head_dim + value_head_dim for each visible pair, and one for each byte read when keys and
// values are counted as fp32. A core does 40 to 90 of them in a nanosecond, so 2^20 are about 10 to 25 us. The
// scheduler compares costs and runs the largest first; only their proportions matter.
//
// Guarantees. The plan is a pure function of the problem and the kernel. It knows neither the number of threads nor
// what else runs, and a merge adds its parts in a fixed order, so the results are bit-identical for any number of
// threads. Every (row, key) pair that the mask and the lengths leave visible is in exactly one item that computes, and
// every row is written by exactly one unit.
//
// What it does not do: it allocates nothing but the plan itself, starts no thread and reads no tensor data (it asks
// Kernel::values_in_place for an address only). attention_work.h allocates and runs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernel/attention.h"
#include "kernel/kernel.h"

namespace attnd::schedule {

enum class Way : std::uint8_t { kNothing, kDirect, kLocal, kShared };

// One (batch entry, key head).
struct UnitPlan {
  Way way;

  std::int64_t rows;  // query rows that are not padding, times the heads that share the key head
  // The unit reads the keys [first_key, first_key + keys): from the first that is true to the last that its last query
  // sees. Key bits may hide some between.
  std::int64_t first_key;
  std::int64_t keys;

  // kDirect, kLocal: the keys are cut into `splits` ranges of `split_keys` keys, the last one shorter. 1 split: results
  // are written straight to the output. kShared, kNothing: 1.
  std::int64_t splits;
  std::int64_t split_keys;

  double cost;  // of the whole unit, in multiply-adds

  // kShared: where the values lie in the form that the kernel packs them in, so that they need not be packed; null if
  // they must be. Borrowed from the problem.
  const std::byte* values;
};

enum class Step : std::uint8_t {
  kUnits,       // compute the units [first, last) whole, without splits
  kSplit,       // compute all rows of `unit` over its keys [first, last), as a partial result
  kMerge,       // merge the partial results of `unit` into the output
  kPackKeys,    // pack the keys [first, last) of `unit`
  kPackValues,  // pack the values of the keys [first, last) of `unit`
  kTile,        // compute the query rows [first, last) of `head` over all keys of `unit`
};

struct PlannedItem {
  Step step;
  std::int64_t unit;   // index into AttentionPlan::units; of kUnits, the first
  std::int64_t head;   // kTile: the query head, in [0, heads); else 0
  std::int64_t first;  // units, keys or query rows: see Step. kMerge: 0
  std::int64_t last;   // one beyond. kMerge: 0
  double cost;         // in multiply-adds
};

struct AttentionPlan {
  std::int64_t group;       // heads that share a key head
  std::int64_t local_keys;  // most keys that kLocal packs at a time; a multiple of Kernel::key_block

  // Unit u is batch entry u / kv_heads, key head u % kv_heads.
  std::vector<UnitPlan> units;  // [batch * kv_heads]

  // An item comes after what unlocks it. The items of kTile, and of kMerge, of one unit are consecutive.
  std::vector<PlannedItem> items;
};

// Cuts `attention`, whose pointers must be valid during the call; see values for what the plan borrows. Thread-safe.
AttentionPlan PlanAttention(const kernel::Attention& attention, const kernel::Kernel& kernel);

}  // namespace attnd::schedule
