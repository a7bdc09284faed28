#include "schedule/attention_plan.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <tuple>
#include <vector>

#include "../kernel/problem.h"
#include "gtest/gtest.h"
#include "kernel/kernel.h"
#include "plan_cases.h"
#include "schedule/attention_work.h"
#include "schedule/scheduler.h"

namespace attnd::schedule {
namespace {

using kernel::Attention;
using kernel::AvailableKernels;
using kernel::Kernel;
using kernel::Problem;

TEST(AttentionPlan, ChoosesTheWay) {
  for (const PlanCase& c : PlanCases()) {
    Problem problem(c.spec);
    const AttentionPlan plan(problem.attention(), *AvailableKernels().front());
    const UnitPlan unit = plan.UnitOf(0);
    EXPECT_EQ(unit.way, c.way) << c.name;
    EXPECT_EQ(unit.splits > 1, c.split) << c.name;
    if (c.way == Way::kShared && c.packed) {
      EXPECT_TRUE(plan.slots_hold_values()) << c.name;
    }
  }
}

// Units that one thread computes whole are put together, so that hand-over costs little, yet leave work for several.
TEST(AttentionPlan, SmallUnitsArePutTogether) {
  Problem problem({.batch = 64, .heads = 8, .kv_heads = 8, .queries = 16, .keys = 16, .head_dim = 16});
  const AttentionPlan plan(problem.attention(), *AvailableKernels().front());
  ASSERT_EQ(plan.classes().size(), 1u);
  EXPECT_EQ(plan.classes()[0].units, 512);
  EXPECT_GE(plan.classes()[0].units_an_item, 512 / 64);
  EXPECT_LE(plan.classes()[0].units_an_item, 512 / 4);
}

// An attention without data: what a plan looks at are sizes alone, unless lengths and bits tell sequences apart.
Attention Sizes(std::int64_t batch, std::int64_t rows, std::int64_t dim) {
  static const std::byte kNowhere{};
  static const kernel::Segment kAll{&kNowhere, std::size_t{1} << 62};
  Attention a{};
  a.batch = batch;
  a.heads = a.kv_heads = 1;
  a.query_length = a.key_length = rows;
  a.head_dim = a.value_head_dim = dim;
  a.q = a.k = a.v = {&kAll, 1, tensor::DType::kF32, rows * dim, rows * dim, dim};
  a.out = {nullptr, tensor::DType::kF32, rows * dim, rows * dim, dim};
  return a;
}

// 40 million units as much as one.
TEST(AttentionPlan, TakesNoMemoryForUnitsThatAreAlike) {
  const Kernel& kernel = *AvailableKernels().front();
  const std::int64_t one = AttentionWorkBytes(AttentionPlan(Sizes(1, 1, 1), kernel));
  const std::int64_t many = AttentionWorkBytes(AttentionPlan(Sizes(40'000'000, 1, 1), kernel));
  EXPECT_EQ(many, one);
  EXPECT_LT(one, 8192);
  EXPECT_LT(AttentionWorkBytes(AttentionPlan(Sizes(40'000'000, 32, 64), kernel)), 8192);
}

// Units of kShared are open in a window: at least one, else so many as fit.
TEST(AttentionPlan, PackedMemoryIsBounded) {
  constexpr std::int64_t kOverhead = 8192 + 200 * kMaxSlots;
  for (const Kernel* kernel : AvailableKernels()) {
    for (const std::int64_t rows : {500, 2000, 30'000, 1'000'000}) {
      for (const std::int64_t dim : {8, 64, 1024}) {
        const std::int64_t one = AttentionWorkBytes(AttentionPlan(Sizes(1, rows, dim), *kernel));
        for (const std::int64_t batch : {2, 1000, 1'000'000}) {
          const AttentionPlan plan(Sizes(batch, rows, dim), *kernel);
          if (plan.UnitOf(0).way != Way::kShared) continue;
          EXPECT_LE(AttentionWorkBytes(plan), std::max(kWindowBytes, one) + kOverhead) << rows << " " << dim;
          EXPECT_GE(plan.slots(), 1);
          EXPECT_GE(AttentionWorkBytes(plan), one);
        }
      }
    }
  }
}

// A whole slot for each of the largest sizes does not overflow.
TEST(AttentionPlan, CountsTheLargestSizes) {
  for (const Kernel* kernel : AvailableKernels()) {
    Attention a = Sizes(INT32_MAX, INT32_MAX, 1 << 20);
    a.q.batch_stride = a.k.batch_stride = a.v.batch_stride = 0;
    a.v.dtype = tensor::DType::kBF16;
    const AttentionPlan plan(a, *kernel);
    EXPECT_EQ(plan.slots(), 1);
    const double keys = static_cast<double>(INT32_MAX) * (1 << 20) * 4;
    EXPECT_GT(static_cast<double>(AttentionWorkBytes(plan)), keys);
    EXPECT_LT(static_cast<double>(AttentionWorkBytes(plan)), 2.1 * keys);
  }
}

// Lengths cost 4 bytes a sequence, key bits 8 more.
TEST(AttentionPlan, RaggedBatchesTakeAFewBytesASequence) {
  constexpr std::int64_t kBatch = 100'000;
  const Kernel& kernel = *AvailableKernels().front();
  const std::vector<std::int64_t> lengths(kBatch, 1);
  const std::vector<std::byte> bits(kBatch, std::byte{1});
  Attention a = Sizes(kBatch, 2, 8);
  const std::int64_t alike = AttentionWorkBytes(AttentionPlan(a, kernel));
  a.key_lengths = lengths.data();
  EXPECT_LE(AttentionWorkBytes(AttentionPlan(a, kernel)), alike + 4 * kBatch + 128);
  a.key_bits = bits.data();
  EXPECT_LE(AttentionWorkBytes(AttentionPlan(a, kernel)), alike + 12 * kBatch + 192);
}

// Each entry once, those that take a slot first, and then the classes, each within a factor of two.
TEST(AttentionPlan, OrdersRaggedEntriesByCost) {
  std::vector<std::int64_t> lengths;
  for (std::int64_t i = 0; i < 300; ++i) lengths.push_back(i * 7919 % 301 * (i % 5 == 0 ? 9 : 1));
  Problem problem({.batch = 300,
                   .heads = 2,
                   .kv_heads = 2,
                   .queries = 2700,
                   .keys = 2700,
                   .head_dim = 1,
                   .value_head_dim = 1,
                   .query_lengths = lengths,
                   .key_lengths = lengths});
  const AttentionPlan plan(problem.attention(), *AvailableKernels().front());
  EXPECT_FALSE(plan.uniform());
  std::vector<std::int32_t> order(300);
  plan.WriteOrder(absl::MakeSpan(order));
  std::vector<std::int32_t> sorted = order;
  std::sort(sorted.begin(), sorted.end());
  for (std::int32_t i = 0; i < 300; ++i) ASSERT_EQ(sorted[static_cast<std::size_t>(i)], i);
  EXPECT_GT(plan.classes().size(), 4u);
  std::int64_t ordinal = 0;
  double total = 0, expected = 0;
  for (const UnitClass& units : plan.classes()) {
    ASSERT_EQ(units.first, ordinal);
    for (; ordinal < units.first + units.units; ++ordinal) {
      const UnitPlan unit = plan.UnitOf(order[static_cast<std::size_t>(ordinal / 2)]);
      EXPECT_EQ(unit.takes_slot(), ordinal < plan.slotted_units());
      EXPECT_EQ(unit.takes_slot(), units.units_an_item == 0);
      EXPECT_LE(unit.cost, 2 * units.unit_cost);
      EXPECT_GE(unit.cost, units.unit_cost / 2);
      expected += unit.cost;
    }
    total += units.unit_cost * static_cast<double>(units.units);
  }
  EXPECT_EQ(ordinal, plan.units());
  EXPECT_NEAR(total, expected, 1e-9 * expected);
}

// What rows cost beside what they read and write is their visible pairs, by the definition in attention.h.
TEST(AttentionPlan, CountsPairs) {
  const kernel::Kernel& kernel = *kernel::AvailableKernels().front();
  const auto cost = [&kernel](std::int64_t keys) {  // of one row that sees them
    const kernel::Problem problem({.queries = 1, .keys = keys, .mask = kernel::Mask::kNone});
    const AttentionPlan plan(problem.attention(), kernel);
    return plan.TileCost(0, plan.UnitOf(0), 0, 1);
  };
  const double of_pair = cost(2) - cost(1), of_row = 2 * cost(1) - cost(2);
  for (const PlanCase& c : PlanCases()) {
    const kernel::Problem problem(c.spec);
    const kernel::Attention& a = problem.attention();
    if (a.key_bits != nullptr) continue;  // those that they hide count
    const AttentionPlan plan(a, kernel);
    for (std::int64_t b = 0; b < a.batch; ++b) {
      const UnitPlan unit = plan.UnitOf(b);
      const std::int64_t rows = a.query_lengths == nullptr ? a.query_length : a.query_lengths[b];
      double sum = 0;
      for (std::int64_t row = 0; row < rows; ++row) {
        const std::int64_t position = (a.query_offsets == nullptr ? a.query_offset : a.query_offsets[b]) + row;
        std::int64_t pairs = 0;
        for (std::int64_t key = a.key_starts == nullptr ? 0 : a.key_starts[b];
             key < (a.key_lengths == nullptr ? a.key_length : a.key_lengths[b]); ++key) {
          const bool in_prefix = a.prefix_lengths != nullptr && key < a.prefix_lengths[b];
          const bool masked = a.mask == kernel::Mask::kCausal && key > position && !in_prefix;
          pairs += !masked && key >= position - a.left && key <= position + a.right ? 1 : 0;
        }
        const double expected = static_cast<double>(pairs) * of_pair + of_row;
        ASSERT_EQ(plan.TileCost(b, unit, row, row + 1), expected) << c.name << " row " << row;
        sum += expected;
      }
      EXPECT_EQ(plan.TileCost(b, unit, 0, rows), sum) << c.name;
    }
  }
}

// The same keys as an entry's bits one by one give.
TEST(AttentionPlan, FindsTrueKeys) {
  for (std::int64_t first = 0; first < 40; ++first) {
    for (std::int64_t last = first; last <= 40; ++last) {
      Problem problem({.batch = 2, .queries = 1, .keys = 40, .key_bits = BitsBetween(2, 40, first, last)});
      const AttentionPlan plan(problem.attention(), *AvailableKernels().front());
      const KeyRange keys = plan.TrueKeysOf(1);
      EXPECT_EQ(keys.first, first == last ? 0 : first);
      EXPECT_EQ(keys.last, first == last ? 0 : last);
    }
  }
}

// Whether and where keys are cut depends on them and on the way alone, so that a sequence has the same bits in any
// batch.
TEST(AttentionPlan, CutsDependOnTheKeysAlone) {
  for (const Kernel* kernel : AvailableKernels()) {
    for (const std::int64_t keys : {1000, 5000, 100'000, 3'000'000, 50'000'000}) {
      for (const std::int64_t dim : {8, 64, 256, 2048}) {
        struct Cut {
          Way way;
          std::int64_t splits, split_keys;
          bool operator==(const Cut&) const = default;
        };
        const auto cut = [&](std::int64_t batch, std::int64_t rows, std::int64_t heads) {
          Attention a = Sizes(batch, rows, dim);
          a.key_length = keys;
          a.heads = heads;
          a.mask = kernel::Mask::kNone;
          const UnitPlan unit = AttentionPlan(a, *kernel).UnitOf(0);
          return Cut{unit.way, unit.splits, unit.split_keys};
        };
        const Cut direct = cut(1, 1, 1);
        ASSERT_EQ(direct.way, Way::kDirect);
        EXPECT_GE(direct.splits * direct.split_keys, keys);
        EXPECT_LT((direct.splits - 1) * direct.split_keys, keys);
        for (std::int64_t rows = 1; rows <= kernel->direct_rows; ++rows) {
          EXPECT_TRUE(cut(1, rows, 1) == direct) << keys << " keys, " << dim << ", " << rows << " rows";
          EXPECT_TRUE(cut(1, 1, rows) == direct) << keys << " keys, " << dim << ", " << rows << " heads";
          EXPECT_TRUE(cut(500, rows, 1) == direct) << keys << " keys, " << dim << ", in a batch";
        }
        const Cut local = cut(1, kernel->direct_rows + 1, 1);
        for (const std::int64_t rows : {10, 33, 96, 97, 191, 192}) {
          const Cut other = cut(1, rows, 1);
          if (local.way != Way::kLocal || other.way != Way::kLocal) continue;  // its rows do not fit an arena
          EXPECT_TRUE(other == local) << keys << " keys, " << dim << ", " << rows << " rows";
        }
      }
    }
  }
}

// Consecutive entries are one unit if they share keys and values and see the same of them, up to the rows that one call
// of the kernel takes.
TEST(AttentionPlan, EntriesThatSeeTheSameAreTogether) {
  const Kernel& kernel = *AvailableKernels().front();
  const std::vector<std::int64_t> same(20, 5), start(20, 0), none(20, 0);
  std::vector<std::int64_t> other = same, elsewhere = start;
  other[1] = 4;
  elsewhere[1] = 64;
  const std::vector<std::byte> bits(40, std::byte{0xff});
  std::vector<std::byte> other_bits = bits;
  other_bits[3] = std::byte{0xfe};  // of entry 1: its keys 8 to 9
  Attention shared = Sizes(20, 10, 8);
  shared.query_length = 1;
  shared.mask = kernel::Mask::kNone;
  shared.k.starts = shared.v.starts = start.data();
  shared.query_lengths = nullptr;
  shared.query_offset = 9;
  const auto entries = [&kernel](const Attention& a) { return AttentionPlan(a, kernel).UnitOf(0).entries; };
  EXPECT_EQ(entries(shared), std::min<std::int64_t>(20, kernel.direct_rows));
  for (const std::int64_t rows : {1, 2, 3, 5, 8}) {
    Attention a = shared;
    a.query_length = rows;
    EXPECT_EQ(entries(a), kernel.direct_rows / rows) << rows << " rows each";
    a.batch = 2;
    EXPECT_EQ(entries(a), std::min<std::int64_t>(2, kernel.direct_rows / rows)) << rows << " rows each, of two";
  }
  struct Change {
    const char* name;
    std::function<void(Attention&, bool differs)> make;
  };
  const std::vector<Change> changes = {
      {"query_lengths",
       [&](Attention& a, bool differs) {
         a.query_length = 8;
         a.query_lengths = (differs ? other : same).data();
         a.heads = a.kv_heads = 1;
       }},
      {"key_lengths", [&](Attention& a, bool differs) { a.key_lengths = (differs ? other : same).data(); }},
      {"key_starts", [&](Attention& a, bool differs) { a.key_starts = (differs ? other : same).data(); }},
      {"query_offsets", [&](Attention& a, bool differs) { a.query_offsets = (differs ? other : same).data(); }},
      {"prefix_lengths", [&](Attention& a, bool differs) { a.prefix_lengths = (differs ? other : same).data(); }},
      {"key_bits", [&](Attention& a, bool differs) { a.key_bits = (differs ? other_bits : bits).data(); }},
      {"keys", [&](Attention& a, bool differs) { a.k.starts = (differs ? elsewhere : start).data(); }},
      {"values", [&](Attention& a, bool differs) { a.v.starts = (differs ? elsewhere : start).data(); }},
  };
  for (const Change& change : changes) {
    for (const bool differs : {false, true}) {
      Attention a = shared;
      change.make(a, differs);
      const std::int64_t rows = a.query_lengths == nullptr ? 1 : 5;
      EXPECT_EQ(entries(a), differs ? 1 : kernel.direct_rows / rows) << change.name << " differ: " << differs;
    }
  }
}

// A slot holds what any of the units needs, whichever comes last.
TEST(AttentionPlan, SlotsFitTheLargestUnit) {
  const Kernel& kernel = *AvailableKernels().front();
  for (const std::int64_t rows : {1, 700}) {
    std::vector<std::int64_t> lengths = {9000, 2000, 5000};
    std::size_t of_largest = 0;
    std::sort(lengths.begin(), lengths.end());
    do {
      Attention a = Sizes(3, 9000, 64);
      a.query_length = rows;
      a.mask = kernel::Mask::kNone;
      a.key_lengths = lengths.data();
      const AttentionPlan plan(a, kernel);
      const std::size_t bytes = plan.slot_bytes();
      if (of_largest == 0) of_largest = bytes;
      EXPECT_EQ(bytes, of_largest) << rows;
      const UnitPlan unit = plan.UnitOf(std::max_element(lengths.begin(), lengths.end()) - lengths.begin());
      const std::size_t partials =
          static_cast<std::size_t>(unit.splits * unit.rows * kernel::PartialFloats(a)) * sizeof(float);
      EXPECT_GE(bytes, unit.way == Way::kShared ? kernel.packed_key_bytes(a, 9000) : partials);
    } while (std::next_permutation(lengths.begin(), lengths.end()));
  }
}

// A unit of one row and one key is not free: no more of them run on the submitting thread, or in an item, than take
// some tens of microseconds.
TEST(AttentionPlan, TinyUnitsHaveACost) {
  for (const std::int64_t dim : {1, 16}) {
    for (const std::int64_t rows : {1, 2, 9}) {
      const AttentionPlan plan(Sizes(40'000'000, rows, dim), *AvailableKernels().front());
      const UnitClass& units = plan.classes()[0];
      EXPECT_LE(kInlineCost / units.unit_cost, 50) << rows;
      EXPECT_GE(kInlineCost / units.unit_cost, 4) << rows;
      EXPECT_LE(units.units_an_item, 100) << rows;
    }
  }
  // Rows that are only cleared, too.
  Attention a = Sizes(1, 1'000'000, 1);
  a.query_offset = -1'000'000;
  EXPECT_GT(AttentionPlan(a, *AvailableKernels().front()).classes()[0].unit_cost, 1e9);
}

}  // namespace
}  // namespace attnd::schedule
