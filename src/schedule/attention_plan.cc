#include "schedule/attention_plan.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "kernel/visible.h"
#include "schedule/rounding.h"

namespace attnd::schedule {
namespace {

using kernel::Attention;
using kernel::Kernel;

// In multiply-adds and bytes read. Result bits depend on these: see "Guarantees".
constexpr double kLargestLocal = 1 << 24;       // a larger unit is not left to one thread...
constexpr double kSmallestShared = 1 << 21;     // ...and a smaller one is not split among several
constexpr double kItemsToShare = 64;            // items that a large problem should have at least
constexpr double kMostSplitsAnItem = 4;         // so that others wait at most four times 40 us
constexpr double kCostPerByteRead = 1;          // of reading and packing, in multiply-adds
constexpr std::int64_t kShortQueries = 192;     // most rows that one pass over the keys serves
constexpr std::int64_t kArenaFloats = 1 << 17;  // of keys and values packed at a time
constexpr std::int64_t kMaxStateBytes = std::int64_t{1} << 21;
constexpr std::int64_t kMaxPartialBytes = std::int64_t{1} << 22;

// Other costs, in multiply-adds at 64 a nanosecond; results do not depend on them. Measured on one core (Sapphire
// Rapids class, head_dim 1): a unit of 1 row and 1 key takes 230 ns, of 8 and 8 1,280 ns (kDirect), of 9 and 9 690 ns,
// of 32 and 32 1,620 ns (kLocal), and a pair of 4096 rows and keys 0.44 ns.
constexpr double kCostPerUnit = 1 << 13;       // 128 ns
constexpr double kCostPerDirectRow = 1 << 13;  // 128 ns
constexpr double kCostPerRow = 2 << 10;        // 32 ns, and its bytes
constexpr double kCostPerPair = 24;            // 0.4 ns: the weights
constexpr double kCostPerClearedRow = 1 << 10;

std::int64_t RoundUp(std::int64_t a, std::int64_t multiple) { return CeilDiv(a, multiple) * multiple; }

// The sum of `count` consecutive numbers from `first` on, each clamped to [low, high].
double SumOfClamped(std::int64_t first, std::int64_t count, std::int64_t low, std::int64_t high) {
  const std::int64_t below = std::clamp<std::int64_t>(low - first, 0, count);
  const std::int64_t above = std::clamp<std::int64_t>(first + count - 1 - high, 0, count - below);
  const auto between = static_cast<double>(count - below - above);
  return static_cast<double>(below) * static_cast<double>(low) +
         static_cast<double>(above) * static_cast<double>(high) + between * static_cast<double>(first + below) +
         between * (between - 1) / 2;
}

// VisiblePairs with a window or a prefix: the sum over rows of where the visible keys end, minus where they begin.
double PairsInWindow(const Attention& a, std::int64_t b, std::int64_t first_key, std::int64_t last_key,
                     std::int64_t first, std::int64_t last) {
  const std::int64_t position = kernel::QueryOffset(a, b) + first;
  const std::int64_t rows = last - first;
  const double begins = SumOfClamped(position - a.left, rows, first_key, last_key);
  const std::int64_t window_end = position + 1 + a.right;
  if (a.mask == kernel::Mask::kNone) return SumOfClamped(window_end, rows, first_key, last_key) - begins;
  // The first rows see keys up to the end of the prefix, within the window.
  const std::int64_t prefix = kernel::PrefixLength(a, b);
  const std::int64_t early = std::clamp<std::int64_t>(prefix - (position + 1), 0, rows);
  const std::int64_t prefix_end = std::clamp(prefix, first_key, last_key);
  return SumOfClamped(window_end, early, first_key, prefix_end) +
         SumOfClamped(position + 1 + early, rows - early, first_key, last_key) - begins;
}

// (query, key) pairs of rows [first, last) of one head with `keys` keys, without those that mask and window hide.
double VisiblePairs(const Attention& a, std::int64_t b, std::int64_t first_key, std::int64_t keys, std::int64_t first,
                    std::int64_t last) {
  if (kernel::HasWindow(a)) {
    return PairsInWindow(a, b, first_key, first_key + keys, first, last);
  }
  if (a.mask == kernel::Mask::kNone) return static_cast<double>(last - first) * static_cast<double>(keys);
  return SumOfClamped(kernel::QueryOffset(a, b) + first + 1 - first_key, last - first, 0, keys);
}

double CostPerPair(const Attention& a) { return static_cast<double>(a.head_dim + a.value_head_dim); }

double ReadCost(std::int64_t keys, std::int64_t dims) {
  return static_cast<double>(keys * dims) * 4 * kCostPerByteRead;
}

// Whether two entries share their keys and values.
bool SharesKeys(const Attention& a, std::int64_t entry, std::int64_t other) {
  return kernel::SharesRows(a.k, entry, other) && kernel::SharesRows(a.v, entry, other);
}
bool AnyShareKeys(const Attention& a) {
  if (a.k.pages == nullptr && a.k.starts == nullptr) return false;
  for (std::int64_t entry = 1; entry < a.batch; ++entry) {
    if (SharesKeys(a, entry - 1, entry)) return true;
  }
  return false;
}

// Whether the rows of two entries see the same keys.
bool SeesTheSame(const Attention& a, std::int64_t entry, std::int64_t other) {
  if (kernel::QueryLength(a, entry) != kernel::QueryLength(a, other) ||
      kernel::QueryOffset(a, entry) != kernel::QueryOffset(a, other) ||
      kernel::KeyStart(a, entry) != kernel::KeyStart(a, other) ||
      kernel::KeyLength(a, entry) != kernel::KeyLength(a, other) ||
      kernel::PrefixLength(a, entry) != kernel::PrefixLength(a, other)) {
    return false;
  }
  return a.key_bits == nullptr || std::memcmp(kernel::KeyBits(a, entry), kernel::KeyBits(a, other),
                                              static_cast<std::size_t>((a.key_length + 7) / 8)) == 0;
}

bool AllAlike(const Attention& a) {
  return a.batch == 1 ||
         (a.query_lengths == nullptr && a.key_lengths == nullptr && a.query_offsets == nullptr &&
          a.key_starts == nullptr && a.key_bits == nullptr && a.prefix_lengths == nullptr && !AnyShareKeys(a));
}

}  // namespace

AttentionPlan::AttentionPlan(const Attention& attention, const Kernel& kernel, std::int64_t window_bytes)
    : attention_(attention),
      kernel_(&kernel),
      group_(attention.heads / attention.kv_heads),
      local_keys_(RoundUp(std::max<std::int64_t>(1, kArenaFloats / (attention.head_dim + attention.value_head_dim)),
                          kernel.key_block)),
      pack_keys_(RoundUp(std::max<std::int64_t>(1, kArenaFloats / (2 * attention.head_dim)), kernel.key_block)),
      state_bytes_(static_cast<std::int64_t>(kernel.state_bytes(attention))),
      uniform_(AllAlike(attention)) {
  // Sums of whole numbers: exact in any order below 2^53; above that, `small_` is at its upper bound.
  double total = 0;
  const std::int64_t entries = uniform_ ? 1 : attention_.batch;
  double multiply_adds = 0;
  for (std::int64_t entry = 0; entry < entries; ++entry) {
    unit_ = Measure(entry, TrueKeysOf(entry), multiply_adds);
    total += multiply_adds * static_cast<double>(attention_.kv_heads);
  }
  if (uniform_) total *= static_cast<double>(attention_.batch);
  an_item_ = total / kItemsToShare;
  small_ = std::clamp(an_item_, kSmallestShared, kLargestLocal);
  if (uniform_) ChooseWay(unit_, multiply_adds);
  Classify(window_bytes);
}

KeyRange AttentionPlan::TrueKeysOf(std::int64_t entry) const {
  const Attention& a = attention_;
  std::int64_t first = kernel::KeyStart(a, entry);
  std::int64_t last = kernel::KeyLength(a, entry);
  if (const std::byte* bits = kernel::KeyBits(a, entry)) {
    constexpr std::byte kNone{0};
    while (first < last && !kernel::KeyBit(a, entry, first)) {
      first += first % 8 == 0 && bits[first / 8] == kNone ? 8 : 1;
    }
    while (first < last && !kernel::KeyBit(a, entry, last - 1)) {
      last -= last % 8 == 0 && bits[last / 8 - 1] == kNone ? 8 : 1;
    }
  }
  if (first >= last) return {0, 0};
  return {static_cast<std::int32_t>(first), static_cast<std::int32_t>(last)};
}

// Rows, keys and cost of a unit that is not split.
UnitPlan AttentionPlan::Measure(std::int64_t entry, KeyRange true_keys, double& multiply_adds) const {
  const Attention& a = attention_;
  const std::int64_t queries = kernel::QueryLength(a, entry);
  UnitPlan unit{};
  unit.entries = 1;
  unit.rows = queries * group_;
  const std::int64_t end = queries == 0 ? 0 : kernel::VisibleKeys(a, entry, true_keys.last, queries - 1);
  unit.first_key = std::max<std::int64_t>(true_keys.first, std::min(end, kernel::FirstVisible(a, entry, 0)));
  unit.keys = std::max<std::int64_t>(0, end - unit.first_key);
  unit.splits = 1;
  unit.split_keys = unit.keys;
  unit.splits_an_item = 1;
  const double pairs = VisiblePairs(a, entry, unit.first_key, unit.keys, 0, queries) * static_cast<double>(group_);
  multiply_adds = pairs * CostPerPair(a) + ReadCost(unit.keys, a.head_dim + a.value_head_dim);
  unit.cost = multiply_adds + pairs * kCostPerPair + kCostPerUnit +
              RowsCost(unit.rows, unit.rows <= kernel_->direct_rows ? kCostPerDirectRow : kCostPerRow) +
              ClearCost(kernel::UnusedRows(a, entry) * group_);
  return unit;
}

UnitPlan AttentionPlan::UnitOf(std::int64_t entry, KeyRange true_keys) const {
  if (uniform_) return unit_;
  double multiply_adds = 0;
  UnitPlan unit = Measure(entry, true_keys, multiply_adds);
  ChooseWay(unit, multiply_adds);
  if (unit.way == Way::kDirect) TakeTogether(entry, unit);
  return unit;
}

void AttentionPlan::TakeTogether(std::int64_t entry, UnitPlan& unit) const {
  const std::int64_t most = std::min(attention_.batch - entry, kernel_->direct_rows / unit.rows);
  while (unit.entries < most && SharesKeys(attention_, entry, entry + unit.entries) &&
         SeesTheSame(attention_, entry, entry + unit.entries)) {
    ++unit.entries;
  }
  const double read = ReadCost(unit.keys, attention_.head_dim + attention_.value_head_dim) + kCostPerUnit;
  unit.cost = read + (unit.cost - read) * static_cast<double>(unit.entries);
  unit.rows *= unit.entries;
}

std::int64_t AttentionPlan::TilesOf(const UnitPlan& unit) const {
  return group_ * CeilDiv(unit.rows / group_, kernel_->query_tile);
}

void AttentionPlan::ChooseWay(UnitPlan& unit, double multiply_adds) const {
  if (unit.rows == 0 || unit.keys == 0) {
    unit.way = Way::kNothing;
    return;
  }
  if (unit.rows <= kernel_->direct_rows) {
    unit.way = Way::kDirect;
    Split(unit, kernel_->direct_rows);
    unit.splits_an_item = SplitsAnItem(unit, multiply_adds);
    return;
  }
  const bool fits = TilesOf(unit) <= kMaxStateBytes / state_bytes_;
  const bool is_short = unit.rows <= kShortQueries && unit.keys >= 4 * unit.rows;
  unit.way = fits && (multiply_adds <= small_ || is_short) ? Way::kLocal : Way::kShared;
  if (unit.way == Way::kLocal && is_short) Split(unit, kShortQueries);
}

std::int64_t AttentionPlan::PartialBytes(std::int64_t rows) const {
  return rows * kernel::PartialFloats(attention_) * static_cast<std::int64_t>(sizeof(float));
}

// Cuts a unit's keys into ranges of local_keys, or longer ones if the partial results of `most_rows` rows would be too
// large. The unit's actual rows and the rest of the call make no difference, because bits depend on the ranges.
void AttentionPlan::Split(UnitPlan& unit, std::int64_t most_rows) const {
  unit.split_keys = RoundUp(unit.keys, kernel_->key_block);
  if (unit.keys <= local_keys_) return;  // a million ragged sequences: divisions would take most of the time
  const std::int64_t most = std::max<std::int64_t>(1, kMaxPartialBytes / PartialBytes(most_rows));
  const std::int64_t splits = std::min(CeilDiv(unit.keys, local_keys_), most);
  unit.split_keys = RoundUp(CeilDiv(unit.keys, splits), kernel_->key_block);
  unit.splits = CeilDiv(unit.keys, unit.split_keys);
}

// As many ranges per item as still leave the call kItemsToShare items.
std::int64_t AttentionPlan::SplitsAnItem(const UnitPlan& unit, double multiply_adds) const {
  const double split = multiply_adds / static_cast<double>(unit.splits);
  const double fit = std::clamp(an_item_ / split, 1.0, kMostSplitsAnItem);
  return std::min(unit.splits, static_cast<std::int64_t>(fit));
}

int AttentionPlan::ClassIndex(const UnitPlan& unit) {
  constexpr int kFirstBits = 13;  // of 2^12
  const int bits = static_cast<int>(std::bit_width(static_cast<std::uint64_t>(std::min(unit.cost, 0x1p60))));
  const int octave = std::clamp(bits - kFirstBits, 0, kOctaves - 1);
  return (unit.takes_slot() ? 0 : kOctaves) + kOctaves - 1 - octave;
}

std::size_t AttentionPlan::SlotBytesOf(const UnitPlan& unit) const {
  if (unit.way == Way::kShared) {
    return Aligned(kernel_->packed_key_bytes(attention_, unit.keys)) +
           (slots_hold_values_ ? Aligned(kernel_->packed_value_bytes(attention_, unit.keys)) : 0);
  }
  return Aligned(static_cast<std::size_t>(unit.splits * PartialBytes(unit.rows)));
}

// Whether the values of some unit may have to be packed. In a tensor of one segment all heads are alike.
bool AttentionPlan::ValuesNeedRoom() const {
  const Attention& a = attention_;
  if (a.v.segment_count != 1) return true;
  if (a.key_bits == nullptr) return kernel_->values_in_place(a, 0, 0, 0, a.key_length) == nullptr;
  return !uniform_ || kernel_->values_in_place(a, 0, 0, unit_.first_key, unit_.first_key + unit_.keys) == nullptr;
}

void AttentionPlan::Classify(std::int64_t window_bytes) {
  struct Sum {
    std::int64_t units;
    double cost;
  };
  const auto add = [this](int index, const Sum& sum) {
    const bool slotted = index < kOctaves;
    const double mean = sum.cost / static_cast<double>(sum.units);
    const std::int64_t an_item =
        slotted ? 0 : static_cast<std::int64_t>(std::max(1.0, std::min(kSmallestItem / mean, 0x1p40)));
    const std::int64_t first = classes().empty() ? 0 : classes().back().first + classes().back().units;
    classes_.Add({first, sum.units, mean, an_item, index});
    if (slotted) slotted_units_ += sum.units;
  };
  if (uniform_) {
    if (unit_.takes_slot()) {
      slots_hold_values_ = ValuesNeedRoom();
      slot_bytes_ = SlotBytesOf(unit_);
    }
    add(ClassIndex(unit_), {PlainUnits(), unit_.cost * static_cast<double>(PlainUnits())});
  } else {
    slots_hold_values_ = ValuesNeedRoom();
    std::array<Sum, UnitClasses::kCapacity> sums{};
    UnitPlan unit{};
    for (std::int64_t entry = 0; entry < attention_.batch; entry += unit.entries) {
      unit = UnitOf(entry);
      Sum& sum = sums[static_cast<std::size_t>(ClassIndex(unit))];
      sum.units += attention_.kv_heads;
      sum.cost += unit.cost * static_cast<double>(attention_.kv_heads);
      if (unit.takes_slot()) slot_bytes_ = std::max(slot_bytes_, SlotBytesOf(unit));
    }
    for (int i = 0; i < 2 * kOctaves; ++i) {
      if (sums[static_cast<std::size_t>(i)].units > 0) add(i, sums[static_cast<std::size_t>(i)]);
    }
  }
  if (slotted_units_ == 0) return;
  const std::int64_t fit = window_bytes / std::max<std::int64_t>(1, static_cast<std::int64_t>(slot_bytes_));
  slots_ = std::min({slotted_units_, kMaxSlots, std::max<std::int64_t>(1, fit)});
}

void AttentionPlan::WriteOrder(absl::Span<std::int32_t> order) const {
  std::array<std::size_t, UnitClasses::kCapacity> at;  // where the next entry of each class goes
  for (const UnitClass& units : classes()) {
    at[static_cast<std::size_t>(units.index)] = static_cast<std::size_t>(units.first / attention_.kv_heads);
  }
  UnitPlan unit{};
  for (std::int64_t entry = 0; entry < attention_.batch; entry += unit.entries) {
    unit = UnitOf(entry);
    order[at[static_cast<std::size_t>(ClassIndex(unit))]++] = static_cast<std::int32_t>(entry);
  }
}

double AttentionPlan::TileCost(std::int64_t entry, const UnitPlan& unit, std::int64_t first, std::int64_t last) const {
  return VisiblePairs(attention_, entry, unit.first_key, unit.keys, first, last) *
             (CostPerPair(attention_) + kCostPerPair) +
         RowsCost(last - first, kCostPerRow);
}

// What rows cost besides their pairs: reading their queries and writing their outputs.
double AttentionPlan::RowsCost(std::int64_t rows, double each) const {
  return static_cast<double>(rows) * each + ReadCost(rows, attention_.head_dim + attention_.value_head_dim);
}

double AttentionPlan::PackCost(std::int64_t keys, std::int64_t dim) { return ReadCost(keys, dim); }

double AttentionPlan::PassCost(std::int64_t rows, std::int64_t keys) const {
  return static_cast<double>(rows) * static_cast<double>(keys) * (CostPerPair(attention_) + kCostPerPair);
}

double AttentionPlan::MergeCost(const UnitPlan& unit) const {
  return static_cast<double>(unit.rows * unit.splits * attention_.value_head_dim);
}

double AttentionPlan::ClearCost(std::int64_t rows) const {
  return static_cast<double>(rows) * (kCostPerClearedRow + 4 * static_cast<double>(attention_.value_head_dim));
}

}  // namespace attnd::schedule
