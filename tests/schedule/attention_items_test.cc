#include "schedule/attention_items.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <memory>
#include <new>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "../kernel/problem.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "kernel/kernel.h"
#include "plan_cases.h"

namespace attnd::schedule {
namespace {

using kernel::Attention;
using kernel::AvailableKernels;
using kernel::Kernel;
using kernel::Problem;

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

// From the first key that some row sees to the last, those between that key bits hide among them, by the definition in
// attention.h.
KeyEnds SeenKeys(const Attention& a, std::int64_t batch) {
  const std::int64_t queries = a.query_lengths == nullptr ? a.query_length : a.query_lengths[batch];
  const std::int64_t first_position = a.query_offsets == nullptr ? a.query_offset : a.query_offsets[batch];
  const KeyEnds ends = TrueKeys(a, batch);
  KeyEnds seen;
  for (std::int64_t key = ends.first; key < ends.last; ++key) {
    bool by_any = false;
    for (std::int64_t row = 0; row < queries && !by_any; ++row) {
      const std::int64_t position = first_position + row;
      const bool in_prefix = a.prefix_lengths != nullptr && key < a.prefix_lengths[batch];
      const bool masked = a.mask == kernel::Mask::kCausal && key > position && !in_prefix;
      by_any = !masked && key >= position - a.left && key <= position + a.right;
    }
    if (!by_any) continue;
    if (seen.last == 0) seen.first = key;
    seen.last = key + 1;
  }
  return seen;
}

// The items of a plan with the memory that they need.
class Source {
 public:
  explicit Source(const AttentionPlan& plan)
      : memory_(static_cast<std::byte*>(::operator new[](AttentionItems::Bytes(plan) + 1, std::align_val_t{64}))),
        items(plan, memory_.get()) {}

 private:
  struct Free {
    void operator()(std::byte* block) const { ::operator delete[](block, std::align_val_t{64}); }
  };
  const std::unique_ptr<std::byte[], Free> memory_;

 public:
  AttentionItems items;
};

// What one item does to one unit.
struct Part {
  Step step;
  std::int64_t unit;
  std::int64_t head;   // kTile
  std::int64_t first;  // keys, or rows of kTile
  std::int64_t last;
  double cost;
  int taken;     // when the item was handed out...
  int finished;  // ...and finished
  std::int32_t slot;
};

// Takes all items, with up to `running` of them not finished at a time, which are finished in random order.
std::vector<Part> TakeAll(const AttentionPlan& plan, int running, unsigned seed) {
  Source source(plan);
  std::mt19937 random(seed);
  std::vector<Part> parts;
  struct Running {
    Item item;
    std::size_t first_part;
  };
  std::vector<Running> now;
  int clock = 0;
  const auto finish_one = [&] {
    std::swap(now[random() % now.size()], now.back());
    source.items.Finish(now.back().item);
    ++clock;
    for (std::size_t i = now.back().first_part;
         i < parts.size() && parts[i].taken == parts[now.back().first_part].taken; ++i) {
      parts[i].finished = clock;
    }
    now.pop_back();
  };
  for (;;) {
    const std::int64_t ready = source.items.ready();
    const std::optional<Item> item = source.items.Next();
    EXPECT_EQ(item.has_value(), ready > 0);
    if (!item.has_value()) {
      if (now.empty()) return parts;
      finish_one();
      continue;
    }
    ++clock;
    now.push_back({*item, parts.size()});
    const Step step = StepOf(*item);
    const double share = item->cost / static_cast<double>(std::max<std::int64_t>(1, item->last - item->first));
    if (step == Step::kUnits) {
      for (std::int64_t ordinal = item->first; ordinal < item->last; ++ordinal) {
        parts.push_back({step, source.items.UnitAt(ordinal), 0, 0, 0, share, clock, 0, -1});
      }
    } else if (step == Step::kTile) {
      const OpenUnit& open = source.items.At(item->slot);
      for (std::int64_t i = item->first; i < item->last; ++i) {
        const Tile tile = source.items.TileAt(open, i);
        parts.push_back({step, open.unit, tile.head, tile.first_row, tile.last_row, share, clock, 0, item->slot});
      }
    } else {
      parts.push_back(
          {step, source.items.At(item->slot).unit, 0, item->first, item->last, item->cost, clock, 0, item->slot});
    }
    while (now.size() > random() % static_cast<unsigned>(running)) finish_one();
  }
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

// The parts of one unit by step.
struct UnitParts {
  std::map<Step, std::vector<Part>> parts;

  std::vector<Range> Ranges(Step step) const {
    std::vector<Range> ranges;
    if (!parts.contains(step)) return ranges;
    for (const Part& part : parts.at(step)) ranges.emplace_back(part.first, part.last);
    return ranges;
  }
  std::size_t Count(Step step) const { return parts.contains(step) ? parts.at(step).size() : 0; }
  // Whether each of `after` is handed out when all of `before` are finished.
  bool Follows(Step after, Step before) const {
    int last = 0, first = INT32_MAX;
    if (parts.contains(before)) {
      for (const Part& part : parts.at(before)) last = std::max(last, part.finished);
    }
    if (parts.contains(after)) {
      for (const Part& part : parts.at(after)) first = std::min(first, part.taken);
    }
    return last < first;
  }
};

// What is wrong with one unit and its parts; empty if nothing is.
std::string UnitFault(const Attention& a, const Kernel& kernel, const AttentionPlan& plan, std::int64_t u,
                      const UnitParts& parts) {
  const std::int64_t batch = u / a.kv_heads;
  const UnitPlan unit = plan.UnitOf(batch);
  const std::int64_t queries = unit.rows / plan.group();
  const KeyEnds seen = SeenKeys(a, batch);
  if (unit.keys != seen.last - seen.first) return "keys are not those that some row sees";
  const std::int64_t begin = unit.first_key;
  if (unit.keys > 0 && begin != seen.first) return "first key";
  if (unit.rows != plan.group() * (a.query_lengths == nullptr ? a.query_length : a.query_lengths[batch])) return "rows";

  const bool shared = unit.way == Way::kShared;
  const bool split = unit.splits > unit.splits_an_item;
  const std::int64_t split_items = (unit.splits + unit.splits_an_item - 1) / unit.splits_an_item;
  if ((unit.way == Way::kNothing) != (unit.rows == 0 || unit.keys == 0)) return "kNothing";
  if (parts.Count(Step::kUnits) != (shared || split ? 0 : 1)) return "not computed whole once";
  if (parts.Count(Step::kMerge) != (split ? 1 : 0)) return "not merged once";
  if (parts.Count(Step::kSplit) != (split ? static_cast<std::size_t>(split_items) : 0)) return "number of splits";
  if (split && !Covers(parts.Ranges(Step::kSplit), begin, unit.keys)) return "splits do not cover the keys once";
  for (const auto& [first, last] : parts.Ranges(Step::kSplit)) {
    const std::int64_t keys = unit.split_keys * unit.splits_an_item;
    if ((first - begin) % keys != 0 || last - first > keys || (first - begin) % kernel.key_block != 0)
      return "a split begins inside a block";
  }
  if (!parts.Follows(Step::kMerge, Step::kSplit)) return "merged before it is computed";

  if (!Covers(parts.Ranges(Step::kPackKeys), shared ? begin : 0, shared ? unit.keys : 0))
    return "keys are not packed once";
  const bool packs_values =
      shared && kernel.values_in_place(a, batch, u % a.kv_heads, begin, begin + unit.keys) == nullptr;
  if (packs_values && !plan.slots_hold_values()) return "no room for values";
  if (!Covers(parts.Ranges(Step::kPackValues), packs_values ? begin : 0, packs_values ? unit.keys : 0))
    return "values are not packed once";
  for (const Step step : {Step::kPackKeys, Step::kPackValues}) {
    for (const auto& [first, last] : parts.Ranges(step)) {
      if ((first - begin) % kernel.key_block != 0) return "packing begins inside a block";
    }
    if (!parts.Follows(Step::kTile, step)) return "a tile comes before what it reads is packed";
  }
  std::map<std::int64_t, std::vector<Range>> tiles;
  if (parts.parts.contains(Step::kTile)) {
    for (const Part& tile : parts.parts.at(Step::kTile)) {
      tiles[tile.head].emplace_back(tile.first, tile.last);
      if (tile.last - tile.first > kernel.query_tile) return "a tile is too large";
    }
  }
  for (std::int64_t head = 0; head < a.heads; ++head) {
    const bool own = shared && head / plan.group() == u % a.kv_heads;
    if (!Covers(tiles[head], 0, own ? queries : 0)) return "tiles do not cover the rows once";
  }
  return "";
}

// Whether a slot is one unit's from its first item to its last.
std::string SlotFault(const AttentionPlan& plan, const std::vector<UnitParts>& units) {
  struct Use {
    int from;
    int to;
  };
  std::map<std::int32_t, std::vector<Use>> slots;
  for (const UnitParts& unit : units) {
    Use use{INT32_MAX, 0};
    std::set<std::int32_t> its;
    for (const auto& [step, parts] : unit.parts) {
      for (const Part& part : parts) {
        if (step == Step::kUnits) continue;
        its.insert(part.slot);
        use = {std::min(use.from, part.taken), std::max(use.to, part.finished)};
      }
    }
    if (its.size() > 1) return "a unit in two slots";
    if (!its.empty()) slots[*its.begin()].push_back(use);
  }
  if (static_cast<std::int64_t>(slots.size()) > plan.slots()) return "too many slots";
  for (auto& [slot, uses] : slots) {
    if (slot < 0 || slot >= plan.slots()) return "no such slot";
    std::sort(uses.begin(), uses.end(), [](const Use& x, const Use& y) { return x.from < y.from; });
    for (std::size_t i = 1; i < uses.size(); ++i) {
      if (uses[i].from <= uses[i - 1].to) return "two units in a slot";
    }
  }
  return "";
}

// What is wrong with the items of a plan; empty if nothing is. `cost`: what all of them cost.
std::string Fault(const Attention& a, const Kernel& kernel, const AttentionPlan& plan, const std::vector<Part>& parts) {
  std::vector<UnitParts> units(static_cast<std::size_t>(plan.units()));
  for (const Part& part : parts) units[static_cast<std::size_t>(part.unit)].parts[part.step].push_back(part);
  double expected = 0, cost = 0;
  for (std::int64_t u = 0; u < plan.units(); ++u) {
    const std::string fault = UnitFault(a, kernel, plan, u, units[static_cast<std::size_t>(u)]);
    if (!fault.empty()) return absl::StrCat("unit ", u, ": ", fault);
    expected += plan.UnitOf(u / a.kv_heads).cost;
  }
  if (const std::string fault = SlotFault(plan, units); !fault.empty()) return fault;
  // Only packing and tiles differ from the unit's cost: by values that lie in place, and what a unit costs by itself.
  for (const Part& part : parts) cost += part.step == Step::kMerge ? 0 : part.cost;
  if (cost > 1.001 * expected || cost < 0.8 * expected) return absl::StrCat("costs ", cost, ", expected ", expected);
  return "";
}

// Every (row, key) pair is in exactly one item, whatever runs at a time.
TEST(AttentionItems, CoverEveryPairOnceInOrder) {
  for (const PlanCase& c : PlanCases()) {
    Problem problem(c.spec);
    for (const Kernel* kernel : AvailableKernels()) {
      for (const std::int64_t window : {kWindowBytes, std::int64_t{1}}) {  // the latter has one slot
        const AttentionPlan plan(problem.attention(), *kernel, window);
        for (const int running : {1, 4, 50}) {
          EXPECT_EQ(Fault(problem.attention(), *kernel, plan, TakeAll(plan, running, 1)), "")
              << c.name << ", " << kernel->name << ", window " << window << ", " << running;
        }
      }
    }
  }
}

// In a large call several ranges of a unit's keys are one item; where these are all of them, the unit is computed
// whole.
TEST(AttentionItems, TakeSeveralRangesInALargeCall) {
  for (const std::int64_t keys : {9000, 70000}) {
    ProblemSpec spec{.queries = 1, .keys = keys, .query_offset = keys - 1};
    spec.head_dim = spec.value_head_dim = 16;
    Problem problem(spec);
    for (const std::int64_t batch : {1, 200}) {
      Attention a = problem.attention();
      a.batch = batch;
      a.q.batch_stride = a.k.batch_stride = a.v.batch_stride = 0;
      for (const Kernel* kernel : AvailableKernels()) {
        const AttentionPlan plan(a, *kernel);
        const UnitPlan unit = plan.UnitOf(0);
        EXPECT_GE(unit.splits, keys == 9000 ? 3 : 17);
        EXPECT_EQ(unit.splits_an_item, batch == 1 ? 1 : keys == 9000 ? 3 : 4);
        const std::vector<Part> parts = TakeAll(plan, 4, 1);
        EXPECT_EQ(Fault(a, *kernel, plan, parts), "") << keys << " keys, " << batch << ", " << kernel->name;
      }
    }
  }
}

TEST(AttentionItems, CoverEveryPairOfRandomProblems) {
  std::mt19937 random(3);
  const auto up_to = [&random](std::int64_t most) {
    return 1 + static_cast<std::int64_t>(random() % static_cast<unsigned>(most));
  };
  for (int i = 0; i < 120; ++i) {
    ProblemSpec spec{.batch = up_to(i % 3 == 0 ? 40 : 4),
                     .kv_heads = up_to(3),
                     .queries = up_to(i % 4 == 0 ? 1200 : 200),
                     .keys = up_to(i % 5 == 0 ? 9000 : 300),
                     .head_dim = up_to(40),
                     .value_head_dim = up_to(3) * 16};
    spec.heads = spec.kv_heads * up_to(3);
    spec.query_offset = static_cast<std::int64_t>(random() % 500) - spec.queries;
    spec.mask = i % 3 == 1 ? kernel::Mask::kNone : kernel::Mask::kCausal;
    if (spec.keys * spec.queries > 300'000) spec.batch = std::min<std::int64_t>(spec.batch, 2);
    const auto fill = [&](std::vector<std::int64_t>& numbers, std::int64_t most) {
      for (std::int64_t b = 0; b < spec.batch; ++b) numbers.push_back(up_to(most + 1) - 1);
    };
    if (i % 2 == 0) fill(spec.query_lengths, spec.queries);
    if (i % 5 < 2) fill(spec.key_lengths, spec.keys);
    if (i % 7 < 2) fill(spec.key_starts, spec.keys);
    if (i % 11 < 2) {
      for (std::int64_t b = 0; b < spec.batch * spec.keys; ++b) spec.key_bits.push_back(random() % 4 == 0);
    }
    Problem problem(spec);
    const Kernel& kernel = *AvailableKernels()[static_cast<std::size_t>(i) % AvailableKernels().size()];
    const AttentionPlan plan(problem.attention(), kernel);
    EXPECT_EQ(Fault(problem.attention(), kernel, plan, TakeAll(plan, 1 + i % 9, static_cast<unsigned>(i))), "")
        << kernel.name << " " << spec.Name();
  }
}

// The check above finds each fault that items may have.
TEST(AttentionItems, FaultsAreFound) {
  int found = 0;
  for (const PlanCase& c : PlanCases()) {
    const bool has_order = c.split || c.way == Way::kShared;
    if (!has_order || !c.spec.query_lengths.empty()) continue;
    Problem problem(c.spec);
    const Kernel& kernel = *AvailableKernels().front();
    const AttentionPlan plan(problem.attention(), kernel);
    const std::vector<Part> parts = TakeAll(plan, 4, 1);
    using Parts = std::vector<Part>;
    std::vector<std::function<void(Parts&)>> changes = {
        [](Parts& all) {
          for (Part& part : all) part.cost *= 1.3;
        },
        [](Parts& all) {
          for (Part& part : all) std::swap(part.taken, part.finished), part.taken *= -1, part.finished *= -1;
        },
        [](Parts& all) { all.back().slot += 1; },
        [](Parts& all) {
          all.push_back({Step::kUnits, 0, 0, 0, 0, 1, 0, 0, -1});
        },
    };
    const auto first_of = [](Parts& all, Step step) {
      return std::find_if(all.begin(), all.end(), [step](const Part& part) { return part.step == step; });
    };
    for (const Step step : {Step::kSplit, Step::kMerge, Step::kPackKeys, Step::kPackValues, Step::kTile}) {
      Parts copy = parts;
      if (first_of(copy, step) == copy.end()) continue;
      changes.push_back([&, step](Parts& all) { all.erase(first_of(all, step)); });
      changes.push_back([&, step](Parts& all) { all.push_back(*first_of(all, step)); });
      if (step == Step::kMerge) continue;
      changes.push_back([&, step](Parts& all) { ++first_of(all, step)->first; });
      changes.push_back([&, step](Parts& all) { --first_of(all, step)->last; });
    }
    for (std::size_t i = 0; i < changes.size(); ++i) {
      Parts changed = parts;
      changes[i](changed);
      EXPECT_NE(Fault(problem.attention(), kernel, plan, changed), "") << c.name << ", change " << i;
      ++found;
    }
  }
  EXPECT_GT(found, 50);
}

// A long problem gives work to many threads: no item is more than a twentieth of it.
TEST(AttentionItems, NoneHoldsUpALargeProblem) {
  for (const ProblemSpec& spec : {ProblemSpec{.queries = 4096, .keys = 4096, .head_dim = 8, .value_head_dim = 8},
                                  ProblemSpec{.queries = 1, .keys = 65536, .query_offset = 65535},
                                  ProblemSpec{.queries = 100, .keys = 40000, .query_offset = 39900}}) {
    Problem problem(spec);
    double total = 0, largest = 0;
    for (const Part& part : TakeAll(AttentionPlan(problem.attention(), *AvailableKernels().front()), 4, 1)) {
      total += part.cost;
      largest = std::max(largest, part.cost);
    }
    EXPECT_LT(largest, total / 20) << spec.Name();
  }
}

// What costs most comes first, so that what is left at the end is small.
TEST(AttentionItems, TheLargestComeFirst) {
  std::vector<std::int64_t> lengths;
  for (std::int64_t i = 0; i < 200; ++i) lengths.push_back(i * 7919 % 190 + 10);
  Problem problem({.batch = 200, .queries = 200, .keys = 200, .query_lengths = lengths, .key_lengths = lengths});
  const AttentionPlan plan(problem.attention(), *AvailableKernels().front());
  const std::vector<Part> parts = TakeAll(plan, 1, 1);
  double seen = parts.front().cost;
  for (const Part& part : parts) {
    ASSERT_EQ(part.step, Step::kUnits);
    EXPECT_LE(part.cost, 2 * seen);
    seen = std::min(seen, part.cost);
  }
  EXPECT_LT(seen, parts.front().cost / 4);
}

}  // namespace
}  // namespace attnd::schedule
