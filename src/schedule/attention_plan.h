// How an attention problem is cut for threads.
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
//             split along the keys. Batch entries that follow each other, share their keys and see the same of them
//             (beams of one source) are one unit, as far as its rows go, so that keys are read once for all.
//   kLocal    One thread packs a block of keys and values in its arena (512 KiB), advances all rows over it, and packs
//             the next block over it. Nothing is allocated and no thread waits for another. For units that cost at most
//             1/64 of the call (never below 2^21 multiply-adds, never above 2^24), and for at most 192 rows against at
//             least four times as many keys, whose one pass over long keys is split. The running softmax of all rows
//             must fit in 2 MiB.
//   kShared   All keys and values are packed once into memory of the call, in parallel; then each tile of rows is an
//             item of its own. For everything larger.
//
// Splitting a unit along its keys (kDirect, kLocal) gives one partial result (maximum, sum, output) per key range, and
// an item that merges them. The partial results of a unit take at most 4 MiB. A range is as long as its reading hides
// what an item costs; in a call of many, one item of kDirect computes up to four that follow each other, and reads on
// from one to the next.
//
// No list. A call may have 40 million units, so nothing is kept for each of them. Where all batch entries are alike,
// the plan describes one unit. Where lengths, starts or key bits tell them apart (their arrays are within a request's
// header), it describes classes of units: those whose items share state, by cost, and then the others, by cost, so that
// the large ones run first. All units of a class cost the same within a factor of two. A class is a range of ordinals;
// which batch entry an ordinal belongs to takes 4 bytes an entry (WriteOrder).
//
// Slots. Units whose items share state (packed keys and values; partial results) take a slot of memory while they are
// open. There are at least one and at most kMaxSlots slots, and as many as fit kWindowBytes: so a call takes at most
// max(kWindowBytes, what its largest unit takes). Every unit of kShared is worth several items, so the slots keep
// hundreds of threads busy; a unit that takes the whole window has hundreds of tiles.
//
// Costs are in multiply-adds, of which a core does some 64 in a nanosecond: head_dim + value_head_dim for each visible
// pair, one for each byte read when keys and values are counted as fp32, and what a pair, a row and a unit cost beside
// that (see attention_plan.cc). The scheduler compares costs; only their proportions matter.
//
// Guarantees. The plan is a pure function of the problem and the kernel. It knows neither the number of threads nor
// what else runs, and a merge adds its parts in a fixed order, so the results are bit-identical for any number of
// threads. The way of a unit, its splits and its tiles depend on multiply-adds and bytes read alone (not on measured
// constants, and not on the slots), so bits change only where the arithmetic does. Whether a unit is split, and how,
// depends on its keys and on whether it is short, and kLocal without splits gives the bits of kShared unless there is a
// window: so a sequence gets the same bits in any batch, and rows of kDirect also as queries or as heads of one entry.
//
// What it does not do: it allocates nothing, starts no thread and reads no tensor data (it asks
// Kernel::values_in_place for an address only). Making it takes tens of nanoseconds for each batch entry, or in all if
// they are alike. attention_items.h hands out the items; attention_work.h allocates and runs.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "kernel/attention.h"
#include "kernel/kernel.h"

namespace attnd::schedule {

// Bounds on the units that are open at a time; whichever is reached first. One always fits.
inline constexpr std::int64_t kWindowBytes = std::int64_t{32} << 20;
inline constexpr std::int64_t kMaxSlots = 1024;

// Units are put together until an item costs this, about 25 us.
inline constexpr double kSmallestItem = 3 << 19;

enum class Way : std::uint8_t { kNothing, kDirect, kLocal, kShared };

// The keys [first, last) of a batch entry.
struct KeyRange {
  std::int32_t first;
  std::int32_t last;
};

// One (batch entry, key head), or (batch entries, key head). All key heads of an entry are alike.
struct UnitPlan {
  Way way;

  std::int64_t entries;  // kDirect: that are computed together, from the unit's own on; else 1
  std::int64_t rows;     // of all entries: query rows that are not padding, times the heads that share the key head
  // The unit reads the keys [first_key, first_key + keys): from the first that is true and that its first query sees to
  // the last that its last query sees. Key bits may hide some between.
  std::int64_t first_key;
  std::int64_t keys;

  // kDirect, kLocal: the keys are cut into `splits` ranges of `split_keys` keys, the last one shorter. 1 item: results
  // are written straight to the output. kShared, kNothing: 1.
  std::int64_t splits;
  std::int64_t split_keys;
  std::int64_t splits_an_item;  // that one item computes, one after another

  double cost;  // of the whole unit

  bool takes_slot() const { return way == Way::kShared || splits > splits_an_item; }
};

// Units [first, first + units) in the order of the plan.
struct UnitClass {
  std::int64_t first;
  std::int64_t units;
  double unit_cost;            // their mean
  std::int64_t units_an_item;  // of those that take no slot; else 0
  int index;                   // the plan's own
};

// At most kCapacity classes. A copy copies those that there are: mostly one, while a call may be so small that copying
// all would show.
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

  // Whether all batch entries are alike and none are computed together. Then ordinals are units, and no order is
  // needed.
  bool uniform() const { return uniform_; }

  // The classes in the order of their ordinals. The units that take a slot come first.
  absl::Span<const UnitClass> classes() const { return classes_.all(); }
  std::int64_t slotted_units() const { return slotted_units_; }

  std::int64_t slots() const { return slots_; }
  std::size_t slot_bytes() const { return slot_bytes_; }  // of a slot's packed keys and values or partial results
  bool slots_hold_values() const { return slots_hold_values_; }

  // Writes, for each batch entry in the order of the plan, which it is; of those that are computed together the first.
  // `order` has room for `batch` entries.
  void WriteOrder(absl::Span<std::int32_t> order) const;

  // The keys of an entry that may be true: the shortest range that holds all true keys. Looks at the key bits.
  KeyRange TrueKeysOf(std::int64_t entry) const;
  // The plan of each unit of a batch entry, and of those after it that are computed with it: none of them is the first
  // of a unit. The second spares a look at key bits.
  UnitPlan UnitOf(std::int64_t entry) const { return uniform_ ? unit_ : UnitOf(entry, TrueKeysOf(entry)); }
  UnitPlan UnitOf(std::int64_t entry, KeyRange true_keys) const;

  // What computing the query rows [first, last) of one head of a kShared unit costs.
  double TileCost(std::int64_t entry, const UnitPlan& unit, std::int64_t first, std::int64_t last) const;
  // The cost of packing `keys` keys, or values.
  static double PackCost(std::int64_t keys, std::int64_t dim);
  // The most that one pass of `rows` rows over `keys` keys costs.
  double PassCost(std::int64_t rows, std::int64_t keys) const;
  double MergeCost(const UnitPlan& unit) const;
  double ClearCost(std::int64_t rows) const;
  // Keys of one item that packs: a multiple of Kernel::key_block.
  std::int64_t pack_keys() const { return pack_keys_; }

  const kernel::Attention& attention() const { return attention_; }
  const kernel::Kernel& kernel() const { return *kernel_; }

 private:
  static constexpr int kOctaves = UnitClasses::kCapacity / 2;  // of costs, from 2^12 to 2^44
  static int ClassIndex(const UnitPlan& unit);

  UnitPlan Measure(std::int64_t entry, KeyRange true_keys, double& multiply_adds) const;
  void TakeTogether(std::int64_t entry, UnitPlan& unit) const;
  std::int64_t PlainUnits() const { return attention_.batch * attention_.kv_heads; }  // if each entry has its own
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
  double an_item_ = 0;  // multiply-adds, of kItemsToShare in all
  double small_ = 0;    // multiply-adds of a unit that one thread computes
  bool uniform_;
  UnitPlan unit_{};  // of every entry, if they are alike
  UnitClasses classes_;
  std::int64_t slotted_units_ = 0;
  std::int64_t slots_ = 0;
  std::size_t slot_bytes_ = 0;
  bool slots_hold_values_ = false;
};

}  // namespace attnd::schedule
