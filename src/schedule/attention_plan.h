// How an attention problem is cut into work for threads.
//
// The problem. The work of a call ranges from one row against one key to billions of (query, key) pairs. Too few items
// leave threads idle; too many cost more to hand out than they compute. Tiles of rows also need packed keys and values,
// and where these are packed decides how much memory a call takes.
//
// A unit is all queries of all heads that share one (batch entry, key head): they read the same keys and values. Units
// share nothing with each other. Each unit is computed in one of four ways:
//
//   kNothing  No query sees a key: the output is zeros.
//   kDirect   At most Kernel::direct_rows rows (queries times heads; decoding). Each key is used too few times to pay
//             for packing, so keys and values are read in place and memory bandwidth is the bound. Long units are split
//             along the keys. Consecutive batch entries that share their keys and see the same of them (beams of one
//             source) form one unit, up to direct_rows rows in all, so that keys are read once for all of them.
//   kLocal    One thread packs a block of keys and values in its arena (512 KiB), advances all rows over it, and packs
//             the next block over it. Nothing is allocated and no thread waits for another. For units that cost at most
//             1/64 of the call (never below 2^21 multiply-adds, never above 2^24), and for at most 192 rows against at
//             least four times as many keys; the single pass of the latter over long keys is split. The running softmax
//             of all rows must fit in 2 MiB.
//   kShared   All keys and values are packed once into memory of the call, in parallel; then tiles of rows are items
//             of their own. For everything larger.
//
// Splitting a unit along its keys (kDirect, kLocal) gives one partial result (maximum, sum, output) per key range, and
// an item that merges them. The partial results of a unit take at most 4 MiB. A range is long enough that the time to
// read it hides the cost of an item. In a call with many ranges, one item of kDirect computes up to four consecutive
// ranges and reads on from one into the next.
//
// No list. A call may have 40 million units, so nothing is kept per unit. If all batch entries are alike, the plan
// describes one unit. If lengths, starts or key bits differ between entries (their arrays are within a request's
// header), it describes classes of units: first those whose items share state, by cost, then the others, by cost, so
// that large units run first. The costs of a class's units are within a factor of two. A class is a range of ordinals;
// the mapping from ordinals to batch entries takes 4 bytes per entry (WriteOrder).
//
// Slots. Units whose items share state (packed keys and values; partial results) take a slot of memory while they are
// open. There are at least one and at most kMaxSlots slots, as many as fit kWindowBytes, so a call takes at most
// max(kWindowBytes, what its largest unit takes). Every kShared unit has several items, so the slots keep hundreds of
// threads busy; a unit that takes the whole window has hundreds of tiles.
//
// Costs are in multiply-adds, of which a core does some 64 in a nanosecond: head_dim + value_head_dim for each visible
// pair, one for each byte read (keys and values counted as fp32), and an overhead for each pair, row and unit (see
// attention_plan.cc). The scheduler compares costs; only their proportions matter.
//
// Guarantees. The plan is a pure function of the problem and the kernel. It does not depend on the number of threads or
// on what else runs, and a merge adds partial results in a fixed order, so results are bit-identical for any number of
// threads. How a unit is computed, its splits and its tiles depend only on multiply-adds and bytes read (not on
// measured constants or slots), so bits change only where the arithmetic does. Whether and how a unit is split depends
// only on its keys and on whether it is short, and kLocal without splits gives the same bits as kShared unless there is
// a window. So a sequence gets the same bits in any batch, and kDirect rows get the same bits as queries or as heads of
// one entry.
//
// What it does not do: it allocates nothing, starts no thread and reads no tensor data (it only asks
// Kernel::values_in_place for an address). Making a plan takes tens of nanoseconds per batch entry, or in all if the
// entries are alike. attention_items.h hands out the items; attention_work.h allocates and runs.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "kernel/attention.h"
#include "kernel/kernel.h"

namespace attnd::schedule {

// Bounds on the units that are open at a time; the tighter one applies. One unit always fits.
inline constexpr std::int64_t kWindowBytes = std::int64_t{32} << 20;
inline constexpr std::int64_t kMaxSlots = 1024;

// Units are combined until an item costs this, about 25 us.
inline constexpr double kSmallestItem = 3 << 19;

enum class Way : std::uint8_t { kNothing, kDirect, kLocal, kShared };

// The keys [first, last) of a batch entry.
struct KeyRange {
  std::int32_t first;
  std::int32_t last;
};

// One (batch entry, key head), or (several batch entries, key head). All key heads of an entry are alike.
struct UnitPlan {
  Way way;

  std::int64_t entries;  // kDirect: number of entries computed together, from the unit's own on; else 1
  std::int64_t rows;     // of all entries: query rows that are not padding, times the heads that share the key head
  // The unit reads the keys [first_key, first_key + keys): from the first true key that its first query sees to the
  // last true key that its last query sees. Key bits may hide some of them.
  std::int64_t first_key;
  std::int64_t keys;

  // kDirect, kLocal: the keys are cut into `splits` ranges of `split_keys` keys, the last one shorter. If one item
  // computes all of them, it writes the output itself. kShared, kNothing: 1.
  std::int64_t splits;
  std::int64_t split_keys;
  std::int64_t splits_an_item;  // consecutive splits that one item computes

  double cost;  // of the whole unit

  bool takes_slot() const { return way == Way::kShared || splits > splits_an_item; }
};

// Units [first, first + units) in the order of the plan.
struct UnitClass {
  std::int64_t first;
  std::int64_t units;
  double unit_cost;            // mean
  std::int64_t units_an_item;  // for units that take no slot; else 0
  int index;                   // the plan's number for the class
};

// At most kCapacity classes. A copy copies only the classes in use, usually one: a call may be so small that copying
// all would be noticeable.
class UnitClasses {
 public:
  static constexpr std::size_t kCapacity = 66;

  UnitClasses() = default;
  UnitClasses(const UnitClasses& other) { *this = other; }
  UnitClasses& operator=(const UnitClasses& other) {
    size_ = other.size_;
    std::copy_n(other.classes_.begin(), size_, classes_.begin());
    return *this;
  }

  void Add(const UnitClass& units) { classes_[size_++] = units; }
  absl::Span<const UnitClass> all() const { return {classes_.data(), size_}; }

 private:
  std::size_t size_ = 0;
  std::array<UnitClass, kCapacity> classes_;
};

// Borrows what the attention points at: lengths, starts, bits, segments (not outputs and bias). Copyable. Thread-safe.
class AttentionPlan {
 public:
  AttentionPlan(const kernel::Attention& attention, const kernel::Kernel& kernel,
                std::int64_t window_bytes = kWindowBytes);

  std::int64_t group() const { return group_; }            // heads that share a key head
  std::int64_t local_keys() const { return local_keys_; }  // most keys that kLocal packs at a time
  std::int64_t units() const { return classes().back().first + classes().back().units; }

  // Whether all batch entries are alike and none are computed together. Then an ordinal is a unit, and no order is
  // needed.
  bool uniform() const { return uniform_; }

  // The classes in order of their ordinals. Units that take a slot come first.
  absl::Span<const UnitClass> classes() const { return classes_.all(); }
  std::int64_t slotted_units() const { return slotted_units_; }

  std::int64_t slots() const { return slots_; }
  std::size_t slot_bytes() const { return slot_bytes_; }  // packed keys and values, or partial results, of one slot
  bool slots_hold_values() const { return slots_hold_values_; }

  // Writes the batch entries in the order of the plan; of entries that are computed together only the first. `order`
  // has room for `batch` entries.
  void WriteOrder(absl::Span<std::int32_t> order) const;

  // The shortest key range that holds all true keys of an entry. Reads the key bits.
  KeyRange TrueKeysOf(std::int64_t entry) const;
  // The plan of each unit that begins at batch entry `entry`. It may include entries after that; no unit begins at
  // those. Passing the true keys avoids reading the key bits.
  UnitPlan UnitOf(std::int64_t entry) const { return uniform_ ? unit_ : UnitOf(entry, TrueKeysOf(entry)); }
  UnitPlan UnitOf(std::int64_t entry, KeyRange true_keys) const;

  // The cost of computing the query rows [first, last) of one head of a kShared unit.
  double TileCost(std::int64_t entry, const UnitPlan& unit, std::int64_t first, std::int64_t last) const;
  // The cost of packing `keys` keys, or values.
  static double PackCost(std::int64_t keys, std::int64_t dim);
  // The most that one pass of `rows` rows over `keys` keys costs.
  double PassCost(std::int64_t rows, std::int64_t keys) const;
  double MergeCost(const UnitPlan& unit) const;
  double ClearCost(std::int64_t rows) const;
  // Keys that one packing item packs: a multiple of Kernel::key_block.
  std::int64_t pack_keys() const { return pack_keys_; }

  const kernel::Attention& attention() const { return attention_; }
  const kernel::Kernel& kernel() const { return *kernel_; }

 private:
  static constexpr int kOctaves = UnitClasses::kCapacity / 2;  // of costs, from 2^12 to 2^44
  static int ClassIndex(const UnitPlan& unit);

  UnitPlan Measure(std::int64_t entry, KeyRange true_keys, double& multiply_adds) const;
  void TakeTogether(std::int64_t entry, UnitPlan& unit) const;
  std::int64_t PlainUnits() const { return attention_.batch * attention_.kv_heads; }  // if no entries are together
  void ChooseWay(UnitPlan& unit, double multiply_adds) const;
  void Split(UnitPlan& unit, std::int64_t most_rows) const;
  std::int64_t SplitsAnItem(const UnitPlan& unit, double multiply_adds) const;
  std::int64_t PartialBytes(std::int64_t rows) const;  // of one split
  double RowsCost(std::int64_t rows, double each) const;
  std::int64_t TilesOf(const UnitPlan& unit) const;
  std::size_t SlotBytesOf(const UnitPlan& unit) const;
  void Classify(std::int64_t window_bytes);
  bool ValuesNeedRoom() const;

  kernel::Attention attention_;
  const kernel::Kernel* kernel_;
  std::int64_t group_;
  std::int64_t local_keys_;
  std::int64_t pack_keys_;
  std::int64_t state_bytes_;
  double an_item_ = 0;  // multiply-adds per item, if kItemsToShare items share the call
  double small_ = 0;    // most multiply-adds of a unit that is left to one thread
  bool uniform_;
  UnitPlan unit_{};  // of every entry, if they are alike
  UnitClasses classes_;
  std::int64_t slotted_units_ = 0;
  std::int64_t slots_ = 0;
  std::size_t slot_bytes_ = 0;
  bool slots_hold_values_ = false;
};

}  // namespace attnd::schedule
