// Hands out the items of an attention plan one by one.
//
// Steps and what unlocks them. Items run in any order that keeps to this:
//
//   kUnits                   whole units, one after another until they cost kSmallestItem: nothing unlocks them
//   kSplit                -> kMerge  when all splits of the unit have run
//   kPackKeys, kPackValues -> kTile  when all packing of the unit is done
//
// A unit whose splits are several items, or of kShared, is open from its first item to its last. It holds a slot, and
// those that wait for a slot are opened as others are closed. The most costly item comes first. So of one unit of
// kShared the tiles come from the last row, which sees most, to the first; and one that packs the keys of the next unit
// comes before the small tiles at the end.
//
// Every (row, key) pair that the mask and the lengths leave visible is in exactly one item that computes, and every row
// is written by exactly one unit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "schedule/attention_plan.h"
#include "schedule/work.h"

namespace attnd::schedule {

enum class Step : std::uint8_t {
  kUnits,       // compute the units with ordinals [first, last) whole
  kSplit,       // compute all rows of the slot's unit over its keys [first, last), as partial results of its ranges
  kMerge,       // merge the partial results of the slot's unit into the output
  kPackKeys,    // pack the keys [first, last) of the slot's unit
  kPackValues,  // pack the values of the keys [first, last) of the slot's unit
  kTile,        // compute the tiles [first, last) of the slot's unit over all its keys
};
inline Step StepOf(const Item& item) { return static_cast<Step>(item.kind); }

// Some query rows of a head.
struct Tile {
  std::int64_t head;  // in [0, heads)
  std::int64_t first_row;
  std::int64_t last_row;
};

// What is kept of a unit while it is open. The items' threads read the first three.
struct OpenUnit {
  std::int64_t unit;  // batch entry unit / kv_heads (of several the first), key head unit % kv_heads
  UnitPlan plan;
  const std::byte* values;  // kShared: where the values lie in the form that they are packed in; null: to be packed

  std::int64_t next;   // the next item of this phase to hand out...
  std::int64_t end;    // ...of these
  std::int64_t left;   // that are not finished
  bool is_last_phase;  // tiles, the merge
};

// Next, Finish and ready: as Work has them. The others may be called beside them, for items that have been handed out.
class AttentionItems {
 public:
  // Memory that it needs, whose size depends on the plan alone: at most 12 bytes a batch entry, if they are not alike,
  // and some 200 for each slot.
  static std::size_t Bytes(const AttentionPlan& plan);

  // Borrows both; `memory` has Bytes(plan) bytes, aligned to 64.
  AttentionItems(const AttentionPlan& plan, std::byte* memory);
  AttentionItems(const AttentionItems&) = delete;
  AttentionItems& operator=(const AttentionItems&) = delete;

  std::optional<Item> Next();
  std::int64_t ready() const;
  void Finish(const Item& item);

  // The unit in a slot.
  const OpenUnit& At(std::int32_t slot) const { return slots_[slot]; }

  // The unit with an ordinal, and the plan of that.
  std::int64_t UnitAt(std::int64_t ordinal) const;
  UnitPlan PlanOf(std::int64_t unit) const;

  // Tiles of an open unit of kShared, and one of them.
  std::int64_t TilesOf(const OpenUnit& open) const;
  Tile TileAt(const OpenUnit& open, std::int64_t tile) const;

 private:
  // The next item of an open unit, in the heap.
  struct Head {
    double cost;
    std::int64_t ordinal;
    std::int32_t slot;
  };
  static bool RunsLater(const Head& a, const Head& b) {
    return a.cost != b.cost ? a.cost < b.cost : a.ordinal > b.ordinal;
  }

  struct Layout;
  void PrepareUnopened();
  void Open();
  void StartPhase(OpenUnit& open, std::int64_t items);
  std::int64_t FirstItems(const UnitPlan& plan, bool packs_values) const;
  Item ItemAt(std::int32_t slot) const;
  void PushHead(std::int64_t ordinal, std::int32_t slot);
  Item TakeOpen();
  Item TakeWhole();
  bool CanOpen() const { return next_slotted_ < plan_.slotted_units() && (free_count_ > 0 || fresh_ < plan_.slots()); }
  std::int64_t TilesAnItem(const OpenUnit& open) const;

  const AttentionPlan& plan_;
  std::int32_t* order_ = nullptr;        // [batch]: entry of each place; null: they are alike
  const KeyRange* true_keys_ = nullptr;  // [batch]: of each entry; null: cheap to find
  OpenUnit* slots_ = nullptr;            // [slots]
  Head* heads_ = nullptr;                // [slots], a heap
  std::int64_t* ordinals_ = nullptr;     // [slots]: of their units
  std::int32_t* free_ = nullptr;         // [slots]: those that are used no more

  // What follows changes with each item, and threads that run items read what stands before: not in the same line.
  alignas(64) std::int64_t head_count_ = 0;
  std::int64_t free_count_ = 0;
  std::int64_t fresh_ = 0;  // slots from here on have never been used

  std::int64_t next_slotted_ = 0;  // ordinal of the next unit to open
  OpenUnit unopened_{};            // this unit
  double unopened_cost_ = 0;       // of its first item
  std::int64_t unopened_items_ = 0;
  std::size_t class_;             // of the next whole units
  std::int64_t next_whole_;       // their first ordinal
  std::int64_t whole_items_ = 0;  // that are left
  std::int64_t open_items_ = 0;   // that are ready, of open units
};

}  // namespace attnd::schedule
