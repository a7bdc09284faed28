#include "schedule/attention_plan.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "../kernel/problem.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "kernel/kernel.h"

namespace attnd::schedule {
namespace {

using kernel::Attention;
using kernel::AvailableKernels;
using kernel::Kernel;
using kernel::Problem;
using kernel::ProblemSpec;

struct Case {
  const char* name;
  ProblemSpec spec;
  Way way;              // of the first unit
  bool split = false;   // the first unit is split
  bool packed = false;  // kShared: values cannot stay in place
};

// Every other key from `first` to `last` - 1, and these two.
std::vector<bool> BitsBetween(std::int64_t batch, std::int64_t keys, std::int64_t first, std::int64_t last) {
  std::vector<bool> bits;
  for (std::int64_t j = 0; j < batch * keys; ++j) {
    const std::int64_t key = j % keys;
    bits.push_back(key >= first && key < last && ((key - first) % 2 == 0 || key == last - 1));
  }
  return bits;
}

std::vector<Case> Cases() {
  return {
      {"one row", {.queries = 1, .keys = 1}, Way::kDirect},
      {"no visible key", {.queries = 5, .keys = 5, .query_offset = -9}, Way::kNothing},
      {"no query", {.queries = 5, .keys = 5, .query_lengths = {0}}, Way::kNothing},
      {"no key", {.queries = 5, .keys = 5, .key_lengths = {0}}, Way::kNothing},
      {"short decode",
       {.batch = 3, .heads = 4, .kv_heads = 2, .queries = 1, .keys = 100, .query_offset = 99},
       Way::kDirect},
      {"decode",
       {.batch = 2, .heads = 8, .kv_heads = 2, .queries = 1, .keys = 9000, .query_offset = 8999},
       Way::kDirect,
       true},
      {"many short", {.batch = 16, .heads = 8, .kv_heads = 8, .queries = 32, .keys = 32}, Way::kLocal},
      {"chunk", {.queries = 48, .keys = 9000, .query_offset = 8952}, Way::kLocal, true},
      {"chunk of grouped heads",
       {.heads = 4, .kv_heads = 2, .queries = 40, .keys = 5000, .query_offset = 4960},
       Way::kLocal,
       true},
      {"long", {.heads = 2, .kv_heads = 2, .queries = 1000, .keys = 1000}, Way::kShared},
      {"grouped", {.heads = 6, .kv_heads = 2, .queries = 500, .keys = 700, .query_offset = 200}, Way::kShared},
      {"unmasked", {.heads = 2, .queries = 500, .keys = 700, .mask = kernel::Mask::kNone}, Way::kShared},
      {"half precision", {.queries = 900, .keys = 900, .dtype = tensor::DType::kF16}, Way::kShared, false, true},
      {"ragged",
       {.batch = 3, .queries = 600, .keys = 600, .query_lengths = {600, 0, 550}, .key_lengths = {600, 600, 590}},
       Way::kShared},
      {"ragged, all ways",
       {.batch = 5,
        .heads = 2,
        .kv_heads = 1,
        .queries = 700,
        .keys = 900,
        .query_offset = 150,
        .query_lengths = {700, 2, 20, 0, 300},
        .key_lengths = {900, 800, 170, 900, 0}},
       Way::kShared},
      {"starts, decode",
       {.heads = 2, .kv_heads = 2, .queries = 1, .keys = 9000, .query_offset = 8999, .key_starts = {4321}},
       Way::kDirect,
       true},
      {"starts, chunk", {.queries = 48, .keys = 9000, .query_offset = 8952, .key_starts = {777}}, Way::kLocal, true},
      {"starts, long",
       {.batch = 4,
        .queries = 900,
        .keys = 900,
        .query_lengths = {900, 900, 900, 700},
        .key_lengths = {900, 600, 900, 900},
        .query_offsets = {0, 300, -450, 2},
        .key_starts = {100, 601, 400, 0}},
       Way::kShared},
      {"bits",
       {.batch = 3, .queries = 600, .keys = 600, .key_bits = BitsBetween(3, 600, 123, 555)},
       Way::kShared,
       false,
       true},
      {"no bit", {.queries = 60, .keys = 600, .key_bits = BitsBetween(1, 600, 0, 0)}, Way::kNothing},
  };
}

bool IsTrueKey(const Attention& a, std::int64_t batch, std::int64_t key) {
  if (a.key_starts != nullptr && key < a.key_starts[batch]) return false;
  if (a.key_lengths != nullptr && key >= a.key_lengths[batch]) return false;
  if (a.key_bits == nullptr) return true;
  const std::byte byte = a.key_bits[batch * ((a.key_length + 7) / 8) + key / 8];
  return (std::to_integer<int>(byte) >> (key % 8)) % 2 != 0;
}

// From a sequence's first true key to its last.
struct KeyEnds {
  std::int64_t first = 0;
  std::int64_t last = 0;
};
KeyEnds TrueKeys(const Attention& a, std::int64_t batch) {
  KeyEnds ends;
  for (std::int64_t key = 0; key < a.key_length; ++key) {
    if (!IsTrueKey(a, batch, key)) continue;
    if (ends.last == 0) ends.first = key;
    ends.last = key + 1;
  }
  return ends;
}

// Keys that a row sees, those between that key bits hide among them, and pairs that a unit computes, by the definition
// in attention.h.
std::int64_t SeenKeys(const Attention& a, std::int64_t batch, std::int64_t row) {
  const std::int64_t queries = a.query_lengths == nullptr ? a.query_length : a.query_lengths[batch];
  std::int64_t seen = 0;
  const KeyEnds ends = TrueKeys(a, batch);
  const std::int64_t position = (a.query_offsets == nullptr ? a.query_offset : a.query_offsets[batch]) + row;
  for (std::int64_t key = ends.first; row < queries && key < ends.last; ++key) {
    if (a.mask == kernel::Mask::kNone || key <= position) ++seen;
  }
  return seen;
}

using Range = std::pair<std::int64_t, std::int64_t>;

// Whether `ranges` follow each other from `begin` on and cover `count`, none empty.
bool Covers(std::vector<Range> ranges, std::int64_t begin, std::int64_t count) {
  std::sort(ranges.begin(), ranges.end());
  std::int64_t at = begin;
  for (const auto& [first, last] : ranges) {
    if (first != at || last <= first) return false;
    at = last;
  }
  return at == begin + count;
}

// The items of one unit by step, in order, with their place in the plan.
struct UnitItems {
  std::map<Step, std::vector<PlannedItem>> items;
  std::map<Step, std::vector<std::size_t>> places;

  std::vector<Range> Ranges(Step step) const {
    std::vector<Range> ranges;
    if (!items.contains(step)) return ranges;
    for (const PlannedItem& item : items.at(step)) ranges.emplace_back(item.first, item.last);
    return ranges;
  }
  std::size_t Count(Step step) const { return items.contains(step) ? items.at(step).size() : 0; }
  // Whether all of `after` come after all of `before` and stand together.
  bool Follows(Step after, Step before) const {
    if (!places.contains(after)) return true;
    const std::vector<std::size_t>& later = places.at(after);
    if (later.back() - later.front() != later.size() - 1) return false;
    return !places.contains(before) || places.at(before).back() < later.front();
  }
};

std::vector<UnitItems> ByUnit(const AttentionPlan& plan) {
  std::vector<UnitItems> units(plan.units.size());
  for (std::size_t i = 0; i < plan.items.size(); ++i) {
    const PlannedItem& item = plan.items[i];
    const std::int64_t first = item.step == Step::kUnits ? item.first : item.unit;
    const std::int64_t last = item.step == Step::kUnits ? item.last : item.unit + 1;
    for (std::int64_t u = first; u < last; ++u) {
      units[static_cast<std::size_t>(u)].items[item.step].push_back(item);
      units[static_cast<std::size_t>(u)].places[item.step].push_back(i);
    }
  }
  return units;
}

// What is wrong with one unit and its items; empty if nothing is.
std::string UnitFault(const Attention& a, const Kernel& kernel, const AttentionPlan& plan, std::int64_t u,
                      const UnitItems& items) {
  const UnitPlan& unit = plan.units[static_cast<std::size_t>(u)];
  const std::int64_t batch = u / a.kv_heads;
  const std::int64_t queries = unit.rows / plan.group;
  std::int64_t most_seen = 0;
  for (std::int64_t row = 0; row < a.query_length; ++row) most_seen = std::max(most_seen, SeenKeys(a, batch, row));
  if (unit.keys != most_seen) return "keys are not those that some row sees";
  const std::int64_t begin = unit.first_key;
  if (unit.keys > 0 && begin != TrueKeys(a, batch).first) return "first key";
  if (unit.rows != plan.group * (a.query_lengths == nullptr ? a.query_length : a.query_lengths[batch])) return "rows";

  const bool shared = unit.way == Way::kShared;
  const bool split = unit.splits > 1;
  if ((unit.way == Way::kNothing) != (unit.rows == 0 || unit.keys == 0)) return "kNothing";
  if (items.Count(Step::kUnits) != (shared || split ? 0 : 1)) return "not computed whole once";
  if (items.Count(Step::kMerge) != (split ? 1 : 0)) return "not merged once";
  if (items.Count(Step::kSplit) != (split ? static_cast<std::size_t>(unit.splits) : 0)) return "number of splits";
  if (split && !Covers(items.Ranges(Step::kSplit), begin, unit.keys)) return "splits do not cover the keys once";
  for (const auto& [first, last] : items.Ranges(Step::kSplit)) {
    if ((first - begin) % unit.split_keys != 0 || (first - begin) % kernel.key_block != 0)
      return "a split begins inside a block";
  }
  if (!items.Follows(Step::kMerge, Step::kSplit)) return "merged before it is computed";

  if (!Covers(items.Ranges(Step::kPackKeys), shared ? begin : 0, shared ? unit.keys : 0))
    return "keys are not packed once";
  const bool packs_values = shared && unit.values == nullptr;
  if (!Covers(items.Ranges(Step::kPackValues), packs_values ? begin : 0, packs_values ? unit.keys : 0))
    return "values are not packed once";
  for (const Step step : {Step::kPackKeys, Step::kPackValues}) {
    for (const auto& [first, last] : items.Ranges(step)) {
      if ((first - begin) % kernel.key_block != 0) return "packing begins inside a block";
    }
    if (!items.Follows(Step::kTile, step)) return "a tile comes before what it reads is packed";
  }
  std::map<std::int64_t, std::vector<Range>> tiles;
  if (items.items.contains(Step::kTile)) {
    for (const PlannedItem& tile : items.items.at(Step::kTile)) {
      tiles[tile.head].emplace_back(tile.first, tile.last);
      if (tile.last - tile.first > kernel.query_tile) return "a tile is too large";
    }
  }
  for (std::int64_t head = 0; head < a.heads; ++head) {
    const bool own = shared && head / plan.group == u % a.kv_heads;
    if (!Covers(tiles[head], 0, own ? queries : 0)) return "tiles do not cover the rows once";
  }
  return "";
}

// What is wrong with a plan; empty if nothing is. Costs must be within 1 % of what the definition gives.
std::string Fault(const Attention& a, const Kernel& kernel, const AttentionPlan& plan) {
  if (plan.group != a.heads / a.kv_heads) return "group";
  if (static_cast<std::int64_t>(plan.units.size()) != a.batch * a.kv_heads) return "units";
  const std::vector<UnitItems> by_unit = ByUnit(plan);
  double expected = 0;
  for (std::size_t u = 0; u < by_unit.size(); ++u) {
    const std::string fault = UnitFault(a, kernel, plan, static_cast<std::int64_t>(u), by_unit[u]);
    if (!fault.empty()) return absl::StrCat("unit ", u, ": ", fault);
    const UnitPlan& unit = plan.units[u];
    std::int64_t pairs = 0;
    for (std::int64_t row = 0; row < a.query_length; ++row) {
      pairs += plan.group * SeenKeys(a, static_cast<std::int64_t>(u) / a.kv_heads, row);
    }
    const std::int64_t read = unit.keys * (a.head_dim + (unit.values == nullptr ? a.value_head_dim : 0));
    expected += static_cast<double>(pairs * (a.head_dim + a.value_head_dim) + 4 * read);
  }
  double cost = 0;
  for (const PlannedItem& item : plan.items) cost += item.step == Step::kMerge ? 0 : item.cost;
  if (std::abs(cost - expected) > 0.01 * expected) return absl::StrCat("costs ", cost, ", expected ", expected);
  return "";
}

bool Same(const AttentionPlan& a, const AttentionPlan& b) {
  const auto unit = [](const UnitPlan& u) {
    return std::tuple(u.way, u.rows, u.first_key, u.keys, u.splits, u.split_keys, u.cost, u.values);
  };
  const auto item = [](const PlannedItem& i) { return std::tuple(i.step, i.unit, i.head, i.first, i.last, i.cost); };
  return a.group == b.group && a.local_keys == b.local_keys &&
         std::equal(a.units.begin(), a.units.end(), b.units.begin(), b.units.end(),
                    [&](const UnitPlan& x, const UnitPlan& y) { return unit(x) == unit(y); }) &&
         std::equal(a.items.begin(), a.items.end(), b.items.begin(), b.items.end(),
                    [&](const PlannedItem& x, const PlannedItem& y) { return item(x) == item(y); });
}

TEST(AttentionPlan, ChoosesTheWay) {
  for (const Case& c : Cases()) {
    Problem problem(c.spec);
    const AttentionPlan plan = PlanAttention(problem.attention(), *AvailableKernels().front());
    const UnitPlan& unit = plan.units.front();
    EXPECT_EQ(unit.way, c.way) << c.name;
    EXPECT_EQ(unit.splits > 1, c.split) << c.name;
    EXPECT_EQ(unit.way == Way::kShared && unit.values == nullptr, c.packed) << c.name;
  }
}

TEST(AttentionPlan, CoversEveryPairOnceInOrder) {
  for (const Case& c : Cases()) {
    Problem problem(c.spec);
    for (const Kernel* kernel : AvailableKernels()) {
      EXPECT_EQ(Fault(problem.attention(), *kernel, PlanAttention(problem.attention(), *kernel)), "")
          << c.name << ", " << kernel->name;
    }
  }
}

// The check above finds each fault that a plan may have.
TEST(AttentionPlan, FaultsAreFound) {
  const auto first_of = [](AttentionPlan& plan, Step step) {
    return std::find_if(plan.items.begin(), plan.items.end(), [step](const PlannedItem& i) { return i.step == step; });
  };
  using Change = std::function<void(AttentionPlan&)>;
  std::vector<Change> changes = {
      [](AttentionPlan& plan) { ++plan.group; },
      [](AttentionPlan& plan) { plan.units.pop_back(); },
      [](AttentionPlan& plan) { ++plan.units.front().rows; },
      [](AttentionPlan& plan) { ++plan.units.front().keys; },
      [](AttentionPlan& plan) { ++plan.units.front().first_key; },
      [](AttentionPlan& plan) { plan.units.front().way = Way::kNothing; },
      [](AttentionPlan& plan) { ++plan.units.front().splits; },
      [](AttentionPlan& plan) {
        for (PlannedItem& item : plan.items) item.cost *= 1.02;
      },
      [](AttentionPlan& plan) { std::reverse(plan.items.begin(), plan.items.end()); },
  };
  int found = 0;
  for (const Case& c : Cases()) {
    const bool has_order = c.split || c.way == Way::kShared;
    if (!has_order || !c.spec.query_lengths.empty()) continue;
    Problem problem(c.spec);
    const Kernel& kernel = *AvailableKernels().front();
    const AttentionPlan plan = PlanAttention(problem.attention(), kernel);
    std::vector<Change> all = changes;
    for (const Step step : {Step::kSplit, Step::kMerge, Step::kPackKeys, Step::kPackValues, Step::kTile}) {
      AttentionPlan copy = plan;
      if (first_of(copy, step) == copy.items.end()) continue;
      all.push_back([&, step](AttentionPlan& p) { p.items.erase(first_of(p, step)); });
      all.push_back([&, step](AttentionPlan& p) { p.items.push_back(*first_of(p, step)); });
      if (step == Step::kMerge) continue;
      all.push_back([&, step](AttentionPlan& p) { ++first_of(p, step)->first; });
      all.push_back([&, step](AttentionPlan& p) { --first_of(p, step)->last; });
    }
    for (std::size_t i = 0; i < all.size(); ++i) {
      AttentionPlan changed = plan;
      all[i](changed);
      EXPECT_NE(Fault(problem.attention(), kernel, changed), "") << c.name << ", change " << i;
      EXPECT_FALSE(Same(plan, changed)) << c.name << ", change " << i;
      ++found;
    }
  }
  EXPECT_GT(found, 50);
}

TEST(AttentionPlan, DependsOnTheProblemAlone) {
  for (const Case& c : Cases()) {
    Problem problem(c.spec);
    for (const Kernel* kernel : AvailableKernels()) {
      EXPECT_TRUE(Same(PlanAttention(problem.attention(), *kernel), PlanAttention(problem.attention(), *kernel)))
          << c.name;
    }
  }
}

// A long problem gives work to many threads: no item is more than a twentieth of it.
TEST(AttentionPlan, NoItemHoldsUpALargeProblem) {
  for (const ProblemSpec& spec : {ProblemSpec{.queries = 4096, .keys = 4096, .head_dim = 8, .value_head_dim = 8},
                                  ProblemSpec{.queries = 1, .keys = 65536, .query_offset = 65535},
                                  ProblemSpec{.queries = 100, .keys = 40000, .query_offset = 39900}}) {
    Problem problem(spec);
    const AttentionPlan plan = PlanAttention(problem.attention(), *AvailableKernels().front());
    double total = 0;
    double largest = 0;
    for (const PlannedItem& item : plan.items) {
      total += item.cost;
      largest = std::max(largest, item.cost);
    }
    EXPECT_LT(largest, total / 20) << spec.Name();
  }
}

// Small units share items, so that hand-over costs little, yet leave work for several threads.
TEST(AttentionPlan, SmallUnitsArePutTogether) {
  Problem problem({.batch = 64, .heads = 8, .kv_heads = 8, .queries = 16, .keys = 16, .head_dim = 16});
  const AttentionPlan plan = PlanAttention(problem.attention(), *AvailableKernels().front());
  EXPECT_EQ(plan.units.size(), 512u);
  EXPECT_LT(plan.items.size(), 64u);
  EXPECT_GE(plan.items.size(), 4u);
}

}  // namespace
}  // namespace attnd::schedule
