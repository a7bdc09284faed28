#include "schedule/attention_items.h"

#include <algorithm>
#include <memory>

#include "kernel/visible.h"
#include "schedule/rounding.h"

namespace attnd::schedule {
namespace {

// Item number `next` of a unit with splits: its keys, counted from the unit's first key, and its cost.
struct SplitItem {
  std::int64_t first;
  std::int64_t last;
  double cost;
};
SplitItem SplitItemAt(const UnitPlan& plan, std::int64_t next) {
  const std::int64_t keys = plan.split_keys * plan.splits_an_item;
  const std::int64_t first = next * keys;
  const std::int64_t last = std::min(plan.keys, first + keys);
  return {first, last, plan.cost * static_cast<double>(last - first) / static_cast<double>(plan.keys)};
}

}  // namespace

// Offsets of the arrays in the memory.
struct AttentionItems::Layout {
  explicit Layout(const AttentionPlan& plan) {
    const auto batch = static_cast<std::size_t>(plan.uniform() ? 0 : plan.attention().batch);
    const auto count = static_cast<std::size_t>(plan.slots());
    order = Take<std::int32_t>(batch);
    true_keys = Take<KeyRange>(plan.attention().key_bits == nullptr ? 0 : batch);
    slots = Take<OpenUnit>(count);
    heads = Take<Head>(count);
    ordinals = Take<std::int64_t>(count);
    free = Take<std::int32_t>(count);
  }

  template <typename T>
  std::size_t Take(std::size_t count) {
    const std::size_t at = bytes;
    bytes = (bytes + count * sizeof(T) + 63) / 64 * 64;
    return at;
  }

  std::size_t bytes = 0;
  std::size_t order, true_keys, slots, heads, ordinals, free;
};

std::size_t AttentionItems::Bytes(const AttentionPlan& plan) { return Layout(plan).bytes; }

AttentionItems::AttentionItems(const AttentionPlan& plan, std::byte* memory) : plan_(plan) {
  const Layout layout(plan);
  const std::int64_t batch = plan.attention().batch;
  if (!plan.uniform()) {
    order_ = reinterpret_cast<std::int32_t*>(memory + layout.order);
    plan.WriteOrder({order_, static_cast<std::size_t>(batch)});
    if (plan.attention().key_bits != nullptr) {
      auto* true_keys = reinterpret_cast<KeyRange*>(memory + layout.true_keys);
      for (std::int64_t entry = 0; entry < batch; ++entry) true_keys[entry] = plan.TrueKeysOf(entry);
      true_keys_ = true_keys;
    }
  }
  slots_ = reinterpret_cast<OpenUnit*>(memory + layout.slots);
  std::uninitialized_default_construct_n(slots_, plan.slots());
  heads_ = reinterpret_cast<Head*>(memory + layout.heads);
  ordinals_ = reinterpret_cast<std::int64_t*>(memory + layout.ordinals);
  free_ = reinterpret_cast<std::int32_t*>(memory + layout.free);

  next_whole_ = plan.slotted_units();
  class_ = 0;
  while (class_ < plan.classes().size() && plan.classes()[class_].units_an_item == 0) ++class_;
  for (std::size_t i = class_; i < plan.classes().size(); ++i) {
    whole_items_ += CeilDiv(plan.classes()[i].units, plan.classes()[i].units_an_item);
  }
  PrepareUnopened();
}

std::int64_t AttentionItems::UnitAt(std::int64_t ordinal) const {
  if (order_ == nullptr) return ordinal;
  const std::int64_t kv_heads = plan_.attention().kv_heads;
  return order_[ordinal / kv_heads] * kv_heads + ordinal % kv_heads;
}

UnitPlan AttentionItems::PlanOf(std::int64_t unit) const {
  const std::int64_t entry = unit / plan_.attention().kv_heads;
  return true_keys_ == nullptr ? plan_.UnitOf(entry) : plan_.UnitOf(entry, true_keys_[entry]);
}

std::int64_t AttentionItems::TilesOf(const OpenUnit& open) const {
  return plan_.group() * CeilDiv(open.plan.rows / plan_.group(), plan_.kernel().query_tile);
}

// Tiles are ordered from the last rows of all heads to the first rows.
Tile AttentionItems::TileAt(const OpenUnit& open, std::int64_t tile) const {
  const std::int64_t group = plan_.group();
  const std::int64_t queries = open.plan.rows / group;
  const std::int64_t rows = plan_.kernel().query_tile;
  const std::int64_t first = (CeilDiv(queries, rows) - 1 - tile / group) * rows;
  return {open.unit % plan_.attention().kv_heads * group + tile % group, first, std::min(queries, first + rows)};
}

// Combines tiles of very few rows or keys. The first tiles hold the last rows of the heads, which may be fewer, so the
// cost is that of a tile of the rows before them.
std::int64_t AttentionItems::TilesAnItem(const OpenUnit& open) const {
  const Tile tile = TileAt(open, std::min(plan_.group(), TilesOf(open) - 1));
  const double cost = plan_.TileCost(open.unit / plan_.attention().kv_heads, open.plan, tile.first_row, tile.last_row);
  return static_cast<std::int64_t>(std::max(1.0, kSmallestItem / cost));
}

std::int64_t AttentionItems::FirstItems(const UnitPlan& plan, bool packs_values) const {
  if (plan.way != Way::kShared) return CeilDiv(plan.splits, plan.splits_an_item);
  return CeilDiv(plan.keys, plan_.pack_keys()) * (packs_values ? 2 : 1);
}

// Prepares the next unit to open.
void AttentionItems::PrepareUnopened() {
  if (next_slotted_ >= plan_.slotted_units()) return;
  const kernel::Attention& a = plan_.attention();
  unopened_ = OpenUnit{};
  unopened_.unit = UnitAt(next_slotted_);
  unopened_.plan = PlanOf(unopened_.unit);
  const UnitPlan& plan = unopened_.plan;
  if (plan.way == Way::kShared) {
    unopened_.values = plan_.kernel().values_in_place(a, unopened_.unit / a.kv_heads, unopened_.unit % a.kv_heads,
                                                      plan.first_key, plan.first_key + plan.keys);
    unopened_cost_ = AttentionPlan::PackCost(std::min(plan.keys, plan_.pack_keys()), a.head_dim);
  } else {
    unopened_cost_ = SplitItemAt(plan, 0).cost;
  }
  unopened_items_ = FirstItems(plan, unopened_.values == nullptr);
}

void AttentionItems::Open() {
  const std::int32_t slot = free_count_ > 0 ? free_[--free_count_] : static_cast<std::int32_t>(fresh_++);
  slots_[slot] = unopened_;
  ordinals_[slot] = next_slotted_;
  StartPhase(slots_[slot], unopened_items_);
  PushHead(next_slotted_++, slot);
  PrepareUnopened();
}

void AttentionItems::StartPhase(OpenUnit& open, std::int64_t items) {
  open.next = 0;
  open.end = open.left = items;
  open_items_ += items;
}

void AttentionItems::PushHead(std::int64_t ordinal, std::int32_t slot) {
  heads_[head_count_++] = {ItemAt(slot).cost, ordinal, slot};
  std::push_heap(heads_, heads_ + head_count_, RunsLater);
}

// The next item of the unit in a slot.
Item AttentionItems::ItemAt(std::int32_t slot) const {
  const OpenUnit& open = slots_[slot];
  const UnitPlan& plan = open.plan;
  const auto item = [slot](Step step, double cost, std::int64_t first, std::int64_t last) {
    return Item{cost, static_cast<std::int32_t>(step), slot, first, last};
  };
  const std::int64_t end = plan.first_key + plan.keys;
  if (plan.way != Way::kShared) {
    if (open.is_last_phase) return item(Step::kMerge, plan_.MergeCost(plan), 0, 0);
    const SplitItem split = SplitItemAt(plan, open.next);
    return item(Step::kSplit, split.cost, plan.first_key + split.first, plan.first_key + split.last);
  }
  const kernel::Attention& a = plan_.attention();
  if (!open.is_last_phase) {
    const bool packs_values = open.values == nullptr;
    const bool values = packs_values && open.next % 2 != 0;
    const std::int64_t key = plan.first_key + (packs_values ? open.next / 2 : open.next) * plan_.pack_keys();
    const std::int64_t last = std::min(end, key + plan_.pack_keys());
    return item(values ? Step::kPackValues : Step::kPackKeys,
                AttentionPlan::PackCost(last - key, values ? a.value_head_dim : a.head_dim), key, last);
  }
  const std::int64_t an_item = TilesAnItem(open);
  const std::int64_t first = open.next * an_item;
  const std::int64_t last = std::min(TilesOf(open), first + an_item);
  const Tile tile = TileAt(open, first);
  const double cost = plan_.TileCost(open.unit / a.kv_heads, plan, tile.first_row, tile.last_row);
  return item(Step::kTile, cost * static_cast<double>(last - first), first, last);
}

Item AttentionItems::TakeOpen() {
  const Head head = heads_[0];
  OpenUnit& open = slots_[head.slot];
  const Item item = ItemAt(head.slot);
  std::pop_heap(heads_, heads_ + head_count_, RunsLater);
  --head_count_;
  ++open.next;
  --open_items_;
  if (open.next < open.end) PushHead(head.ordinal, head.slot);
  return item;
}

Item AttentionItems::TakeWhole() {
  const UnitClass& units = plan_.classes()[class_];
  const std::int64_t first = next_whole_;
  const std::int64_t last = std::min(units.first + units.units, first + units.units_an_item);
  next_whole_ = last;
  --whole_items_;
  if (last == units.first + units.units) ++class_;
  return {units.unit_cost * static_cast<double>(last - first), static_cast<std::int32_t>(Step::kUnits), 0, first, last};
}

std::optional<Item> AttentionItems::Next() {
  const double open_cost = head_count_ > 0 ? heads_[0].cost : -1;
  const double unopened_cost = CanOpen() ? unopened_cost_ : -1;
  double whole_cost = -1;
  if (whole_items_ > 0) {
    const UnitClass& units = plan_.classes()[class_];
    const std::int64_t left = units.first + units.units - next_whole_;
    whole_cost = units.unit_cost * static_cast<double>(std::min(left, units.units_an_item));
  }
  if (whole_cost >= 0 && whole_cost >= open_cost && whole_cost >= unopened_cost) return TakeWhole();
  if (unopened_cost > open_cost) Open();
  if (head_count_ == 0) return std::nullopt;
  return TakeOpen();
}

std::int64_t AttentionItems::ready() const {
  std::int64_t ready = whole_items_ + open_items_;
  if (CanOpen()) {
    const std::int64_t slots = free_count_ + plan_.slots() - fresh_;
    ready += unopened_items_ + std::min(slots, plan_.slotted_units() - next_slotted_) - 1;
  }
  return ready;
}

void AttentionItems::Finish(const Item& item) {
  if (StepOf(item) == Step::kUnits) return;
  OpenUnit& open = slots_[item.slot];
  if (--open.left > 0) return;
  if (open.is_last_phase) {
    free_[free_count_++] = item.slot;
    return;
  }
  open.is_last_phase = true;
  StartPhase(open, open.plan.way == Way::kShared ? CeilDiv(TilesOf(open), TilesAnItem(open)) : 1);
  PushHead(ordinals_[item.slot], item.slot);
}

}  // namespace attnd::schedule
