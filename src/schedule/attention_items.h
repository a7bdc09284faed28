// Hands out the items of an attention plan one by one.
//
// Steps and what unlocks them. Items run in any order that respects this:
//
//   kUnits                   whole units, combined until they cost kSmallestItem: nothing unlocks them
//   kSplit                -> kMerge  when all splits of the unit have run
//   kPackKeys, kPackValues -> kTile  when all packing of the unit is done
//
// A kShared unit, or one whose splits are several items, is open from its first item to its last. An open unit holds a
// slot; units that wait for a slot are opened as others close. The most costly item comes first. So the tiles of a
// kShared unit come from the last rows, which see most, to the first; and packing the next unit's keys comes before the
// small tiles at the end.
//
// Every (row, key) pair that the mask and the lengths leave visible is computed in exactly one item, and every row is
// written by exactly one unit.
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

// State of an open unit. Threads that run its items read the first three members.
struct OpenUnit {
  std::int64_t unit;  // batch entry unit / kv_heads (the first of several), key head unit % kv_heads
  UnitPlan plan;
  const std::byte* values;  // kShared: the values, if they lie in memory as they would be packed; null: to be packed

  std::int64_t next;   // the next item of this phase to hand out...
  std::int64_t end;    // ...out of this many
  std::int64_t left;   // items that are not finished
  bool is_last_phase;  // tiles or merge
};

// Next, Finish and ready: as in Work. The others may be called concurrently, for items that have been handed out.
class AttentionItems {
 public:
  // Bytes of memory needed; depends on the plan alone. At most 12 per batch entry if the entries are not alike, and
  // about 200 per slot.
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

  // The unit of an ordinal, and the plan of a unit.
  std::int64_t UnitAt(std::int64_t ordinal) const;
  UnitPlan PlanOf(std::int64_t unit) const;

  // Number of tiles of an open kShared unit, and one of them.
  std::int64_t TilesOf(const OpenUnit& open) const;
  Tile TileAt(const OpenUnit& open, std::int64_t tile) const;

 private:
  // The next item of an open unit, as an element of the heap.
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
  std::int32_t* free_ = nullptr;         // [slots]: free slots that were used before

  // The members below change with each item; threads that run items read those above. They are in separate cache lines.
  alignas(64) std::int64_t head_count_ = 0;
  std::int64_t free_count_ = 0;
  std::int64_t fresh_ = 0;  // slots from here on have never been used

  std::int64_t next_slotted_ = 0;  // ordinal of the next unit to open
  OpenUnit unopened_{};            // the unit of that ordinal
  double unopened_cost_ = 0;       // of its first item
  std::int64_t unopened_items_ = 0;
  std::size_t class_;             // of the next whole units
  std::int64_t next_whole_;       // their first ordinal
  std::int64_t whole_items_ = 0;  // items of whole units that are left
  std::int64_t open_items_ = 0;   // ready items of open units
};

}  // namespace attnd::schedule
