#include "schedule/attention_plan.h"

#include <algorithm>

#include "kernel/visible.h"

namespace attnd::schedule {
namespace {

using kernel::Attention;
using kernel::Kernel;

// Costs are multiply-adds, some 40 to 90 of which take a nanosecond.
constexpr double kSmallestItem = 1 << 20;    // units are put together until an item has so many
constexpr double kLargestLocal = 1 << 24;    // a unit of more is not left to one thread...
constexpr double kSmallestShared = 1 << 21;  // ...and one of less not given to several
constexpr double kLargestSplit = 1 << 25;
constexpr double kItemsToShare = 64;            // items that a large problem should have at least
constexpr double kCostPerByteRead = 1;          // what reading and packing costs, in multiply-adds
constexpr std::int64_t kShortQueries = 192;     // rows that are taken along in one pass over the keys
constexpr std::int64_t kArenaFloats = 1 << 17;  // of keys and values packed at a time
constexpr std::int64_t kMaxStateBytes = std::int64_t{1} << 21;
constexpr std::int64_t kMaxPartialBytes = std::int64_t{1} << 22;

std::int64_t CeilDiv(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
std::int64_t RoundUp(std::int64_t a, std::int64_t multiple) { return CeilDiv(a, multiple) * multiple; }

// The keys [first, last) of a batch entry that may be true.
struct KeyRange {
  std::int64_t first;
  std::int64_t last;
};

// The shortest range that holds all true keys.
KeyRange TrueKeys(const Attention& a, std::int64_t b) {
  KeyRange range{kernel::KeyStart(a, b), kernel::KeyLength(a, b)};
  while (range.first < range.last && !kernel::KeyBit(a, b, range.first)) ++range.first;
  while (range.first < range.last && !kernel::KeyBit(a, b, range.last - 1)) --range.last;
  return range.first < range.last ? range : KeyRange{0, 0};
}

// (query, key) pairs of rows [first, last) of one head with `keys`, less those that a causal mask hides.
double VisiblePairs(const Attention& a, std::int64_t b, const KeyRange& keys, std::int64_t first, std::int64_t last) {
  const double count = static_cast<double>(keys.last - keys.first);
  if (a.mask == kernel::Mask::kNone) return static_cast<double>(last - first) * count;
  // Row r sees query_offset + r + 1 - keys.first keys, but at least none and at most all. The sum of this over all rows
  // for which that number, before the bounds, is less than `seen`:
  const auto pairs_below = [count](double seen) {
    if (seen <= 0) return 0.0;
    const double rising = std::min(seen, count + 1);
    return rising * (rising - 1) / 2 + (seen - rising) * count;
  };
  const std::int64_t seen = kernel::QueryOffset(a, b) + 1 - keys.first;
  return pairs_below(static_cast<double>(seen + last)) - pairs_below(static_cast<double>(seen + first));
}

double CostPerPair(const Attention& a) { return static_cast<double>(a.head_dim + a.value_head_dim); }

class Planner {
 public:
  Planner(const Attention& a, const Kernel& kernel) : a_(a), kernel_(kernel) {
    plan_.group = a.heads / a.kv_heads;
    const std::int64_t per_key = a.head_dim + a.value_head_dim;
    plan_.local_keys = RoundUp(std::max<std::int64_t>(1, kArenaFloats / per_key), kernel.key_block);
  }

  AttentionPlan Plan() && {
    MeasureUnits();
    for (UnitPlan& unit : plan_.units) ChooseWay(unit);
    AddWholeUnits();
    for (std::size_t u = 0; u < plan_.units.size(); ++u) {
      const UnitPlan& unit = plan_.units[u];
      if (unit.splits > 1) AddSplits(static_cast<std::int64_t>(u), unit);
      if (unit.way == Way::kShared) AddShared(static_cast<std::int64_t>(u), plan_.units[u]);
    }
    return std::move(plan_);
  }

 private:
  void MeasureUnits() {
    for (std::int64_t b = 0; b < a_.batch; ++b) {
      const std::int64_t queries = kernel::QueryLength(a_, b);
      UnitPlan unit{};
      unit.rows = queries * plan_.group;
      const KeyRange keys = TrueKeys(a_, b);
      unit.first_key = keys.first;
      const std::int64_t end = queries == 0 ? 0 : kernel::VisibleKeys(a_, b, keys.last, queries - 1);
      unit.keys = std::max<std::int64_t>(0, end - keys.first);
      unit.cost = VisiblePairs(a_, b, keys, 0, queries) * static_cast<double>(plan_.group) * CostPerPair(a_) +
                  ReadCost(unit.keys, a_.head_dim + a_.value_head_dim);
      unit.splits = 1;
      unit.split_keys = unit.keys;
      plan_.units.insert(plan_.units.end(), static_cast<std::size_t>(a_.kv_heads), unit);
      total_cost_ += unit.cost * static_cast<double>(a_.kv_heads);
    }
  }

  static double ReadCost(std::int64_t keys, std::int64_t dims) {
    return static_cast<double>(keys * dims) * 4 * kCostPerByteRead;
  }

  std::int64_t TilesOf(const UnitPlan& unit) const {
    return plan_.group * CeilDiv(unit.rows / plan_.group, kernel_.query_tile);
  }

  void ChooseWay(UnitPlan& unit) const {
    if (unit.rows == 0 || unit.keys == 0) {
      unit.way = Way::kNothing;
      return;
    }
    if (unit.rows <= kernel_.direct_rows) {
      unit.way = Way::kDirect;
      Split(unit, CeilDiv(unit.keys, plan_.local_keys));
      return;
    }
    const bool fits = TilesOf(unit) * static_cast<std::int64_t>(kernel_.state_bytes(a_)) <= kMaxStateBytes;
    const double small = std::clamp(total_cost_ / kItemsToShare, kSmallestShared, kLargestLocal);
    const bool is_short = unit.rows <= kShortQueries && unit.keys >= 4 * unit.rows;
    unit.way = fits && (unit.cost <= small || is_short) ? Way::kLocal : Way::kShared;
    if (unit.way == Way::kLocal && unit.cost > small) SplitLocal(unit);
  }

  // Cuts a short query's keys into ranges for several threads.
  void SplitLocal(UnitPlan& unit) const {
    const std::int64_t units = static_cast<std::int64_t>(plan_.units.size());
    const std::int64_t wanted = std::max(CeilDiv(static_cast<std::int64_t>(kItemsToShare), units),
                                         static_cast<std::int64_t>(unit.cost / kLargestSplit) + 1);
    Split(unit, std::min(wanted, CeilDiv(unit.keys, plan_.local_keys)));
  }

  // Cuts a unit's keys into so many ranges, or fewer, as the partial results of all units must stay small.
  void Split(UnitPlan& unit, std::int64_t wanted) const {
    const std::int64_t units = static_cast<std::int64_t>(plan_.units.size());
    const std::int64_t partial = unit.rows * kernel::PartialFloats(a_) * static_cast<std::int64_t>(sizeof(float));
    const std::int64_t splits = std::max<std::int64_t>(1, std::min(wanted, kMaxPartialBytes / (units * partial)));
    unit.split_keys = RoundUp(CeilDiv(unit.keys, splits), kernel_.key_block);
    unit.splits = CeilDiv(unit.keys, unit.split_keys);
  }

  // Units that one thread computes whole, put together until they are worth an item.
  void AddWholeUnits() {
    PlannedItem item{Step::kUnits, 0, 0, 0, 0, 0};
    const auto flush = [&] {
      if (item.last > item.first) plan_.items.push_back(item);
    };
    for (std::int64_t u = 0; u < static_cast<std::int64_t>(plan_.units.size()); ++u) {
      const UnitPlan& unit = plan_.units[static_cast<std::size_t>(u)];
      const bool whole = unit.way != Way::kShared && unit.splits == 1;
      if (!whole || item.last != u || item.cost + unit.cost > kSmallestItem) {
        flush();
        item = {Step::kUnits, u, 0, u, u, 0};
      }
      if (!whole) continue;
      item.last = u + 1;
      item.cost += unit.cost;
    }
    flush();
  }

  void AddSplits(std::int64_t u, const UnitPlan& unit) {
    const std::int64_t end = unit.first_key + unit.keys;
    for (std::int64_t key = unit.first_key; key < end; key += unit.split_keys) {
      plan_.items.push_back({Step::kSplit, u, 0, key, std::min(end, key + unit.split_keys),
                             unit.cost / static_cast<double>(unit.splits)});
    }
    plan_.items.push_back({Step::kMerge, u, 0, 0, 0, static_cast<double>(unit.rows * unit.splits * a_.value_head_dim)});
  }

  void AddShared(std::int64_t u, UnitPlan& unit) {
    const std::int64_t end = unit.first_key + unit.keys;
    unit.values = kernel_.values_in_place(a_, u / a_.kv_heads, u % a_.kv_heads, unit.first_key, end);
    const std::int64_t block = RoundUp(std::max<std::int64_t>(1, kArenaFloats / (2 * a_.head_dim)), kernel_.key_block);
    for (std::int64_t key = unit.first_key; key < end; key += block) {
      const std::int64_t last = std::min(end, key + block);
      plan_.items.push_back({Step::kPackKeys, u, 0, key, last, ReadCost(last - key, a_.head_dim)});
      if (unit.values != nullptr) continue;
      plan_.items.push_back({Step::kPackValues, u, 0, key, last, ReadCost(last - key, a_.value_head_dim)});
    }
    const std::int64_t b = u / a_.kv_heads;
    const KeyRange keys{unit.first_key, end};
    const std::int64_t first_head = u % a_.kv_heads * plan_.group;
    for (std::int64_t head = first_head; head < first_head + plan_.group; ++head) {
      for (std::int64_t row = 0; row < kernel::QueryLength(a_, b); row += kernel_.query_tile) {
        const std::int64_t last = std::min(kernel::QueryLength(a_, b), row + kernel_.query_tile);
        plan_.items.push_back(
            {Step::kTile, u, head, row, last, VisiblePairs(a_, b, keys, row, last) * CostPerPair(a_)});
      }
    }
  }

  const Attention& a_;
  const Kernel& kernel_;
  AttentionPlan plan_;
  double total_cost_ = 0;
};

}  // namespace

AttentionPlan PlanAttention(const Attention& attention, const Kernel& kernel) {
  return Planner(attention, kernel).Plan();
}

}  // namespace attnd::schedule
