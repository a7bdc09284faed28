// All features at once, in problems that the schedule cuts into splits: ragged, grouped, thousands of keys, every mask,
// log-sum-exp, every dtype, on output memory that holds another call's results.
#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernel/kernel.h"
#include "problem.h"
#include "schedule/attention_plan.h"

namespace attnd::kernel {
namespace {

using tensor::DType;

// How the schedule computes a problem: whether some unit is split, and in direct calls or in tiles.
struct Ways {
  bool direct_splits = false, tile_splits = false, shared = false;

  void Add(const Attention& a, const Kernel& kernel) {
    const schedule::AttentionPlan plan(a, kernel);
    for (std::int64_t entry = 0; entry < a.batch; ++entry) {
      const auto of_unit = plan.UnitOf(entry);
      direct_splits |= of_unit.way == schedule::Way::kDirect && of_unit.splits > 1;
      tile_splits |= of_unit.way == schedule::Way::kLocal && of_unit.splits > 1;
      shared |= of_unit.way == schedule::Way::kShared;
    }
  }
};

class Draw {
 public:
  explicit Draw(std::uint32_t seed) : random_(seed) {}
  std::int64_t From(std::int64_t low, std::int64_t high) {
    return low + static_cast<std::int64_t>(random_() % static_cast<std::uint32_t>(high - low + 1));
  }
  bool OneIn(std::int64_t n) { return From(1, n) == 1; }
  std::vector<std::int64_t> ForEach(std::int64_t batch, std::int64_t low, std::int64_t high) {
    std::vector<std::int64_t> values;
    for (std::int64_t b = 0; b < batch; ++b) values.push_back(From(low, high));
    return values;
  }

 private:
  std::mt19937 random_;
};

ProblemSpec Drawn(std::uint32_t seed, std::int64_t queries, std::int64_t keys) {
  Draw draw(seed);
  ProblemSpec spec{.batch = 3, .queries = queries, .keys = keys};
  spec.kv_heads = draw.From(1, 2);
  spec.heads = spec.kv_heads * draw.From(1, queries < 3 ? 4 : 2);
  spec.head_dim = draw.From(8, 40);
  spec.value_head_dim = draw.OneIn(2) ? 32 : draw.From(9, 40);
  spec.dtype = static_cast<DType>(seed % 3);
  spec.out_dtype = static_cast<DType>(seed / 3 % 3);
  spec.rows_before_heads = draw.OneIn(2);
  spec.segment_bytes = draw.OneIn(3) ? draw.From(3000, 9000) : 0;
  spec.mask = draw.OneIn(3) ? Mask::kNone : Mask::kCausal;
  spec.query_offset = keys - queries;
  spec.bias = static_cast<BiasKind>(draw.From(0, 4));
  spec.bias_span = draw.From(1, 600);
  spec.precision = ProductPrecision::kBF16;
  spec.seed = seed;
  if (!draw.OneIn(4)) {
    spec.query_lengths = draw.ForEach(spec.batch, 0, queries);
    spec.query_lengths[0] = queries - (queries > 1 ? 1 : 0);  // a unit that is split and leaves rows
  }
  if (!draw.OneIn(3)) spec.key_lengths = draw.ForEach(spec.batch, keys / 2, keys);
  if (draw.OneIn(3)) spec.key_starts = draw.ForEach(spec.batch, 0, keys / 3);
  if (draw.OneIn(3)) spec.query_offsets = draw.ForEach(spec.batch, keys / 2, keys);
  if (draw.OneIn(3)) spec.left = draw.From(keys / 3, keys);
  if (draw.OneIn(4)) spec.right = draw.From(0, 100);
  if (draw.OneIn(4) && spec.mask == Mask::kCausal) spec.prefix_lengths = draw.ForEach(spec.batch, 0, keys);
  if (draw.OneIn(3)) spec.key_bias = true;
  if (draw.OneIn(3)) {
    for (std::int64_t i = 0; i < spec.batch * keys; ++i) spec.key_bits.push_back(!draw.OneIn(5));
  }
  return spec;
}

class TogetherTest : public testing::TestWithParam<std::int64_t> {};  // the number of queries
INSTANTIATE_TEST_SUITE_P(Queries, TogetherTest, testing::Values(1, 2, 4, 20, 50));

TEST_P(TogetherTest, SplitProblemsWithEveryFeature) {
  const std::int64_t queries = GetParam();
  Ways ways;
  for (int again = 0; again < 4; ++again) {
    const auto seed = static_cast<std::uint32_t>(4 * queries + again);
    Draw draw(seed);
    Problem problem(Drawn(seed, queries, queries < 10 ? draw.From(2000, 6000) : draw.From(2000, 3000)));
    ExpectKernelsAgree(problem, Expect(problem), nullptr, again % 2 == 0 ? 1 : 3);
    ways.Add(problem.attention(), *TestedKernels().front());
  }
  if (queries < 10) {
    EXPECT_TRUE(ways.direct_splits) << "no problem is split";
  } else if (queries == 20) {
    EXPECT_TRUE(ways.tile_splits) << "no problem is split";
  }
}

// The rows after each query length, in every way of computing: zeros and -infinity, whatever the memory held.
TEST(Together, UnusedRowsAreClearedInEveryWay) {
  struct Size {
    std::int64_t heads, kv_heads, queries, keys;
  };
  Ways ways;
  for (const auto& [heads, kv_heads, queries, keys] :
       {Size{1, 1, 4, 30}, Size{4, 2, 4, 300}, Size{4, 1, 2, 5000}, Size{1, 1, 30, 2500}, Size{2, 2, 33, 33},
        Size{2, 1, 400, 400}}) {
    for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
      ProblemSpec spec{.batch = 4, .heads = heads, .kv_heads = kv_heads, .queries = queries, .keys = keys};
      spec.head_dim = spec.value_head_dim = 32;
      spec.dtype = spec.out_dtype = dtype;
      spec.query_offset = keys - queries;
      spec.query_lengths = {queries - 1, 0, 1, queries};
      spec.key_lengths = {keys, keys, keys / 2, 0};
      Problem problem(spec);
      ways.Add(problem.attention(), *TestedKernels().front());
      const Expected expected = Expect(problem);
      for (std::int64_t h = 0; h < heads; ++h) {
        ASSERT_EQ(expected.output[static_cast<std::size_t>((h * queries + queries - 1) * 32)], 0.0);
      }
      ExpectKernelsAgree(problem, expected, nullptr, 1);
      ExpectKernelsAgree(problem, expected, nullptr, 2);
    }
  }
  EXPECT_TRUE(ways.direct_splits);
  EXPECT_TRUE(ways.tile_splits);
  EXPECT_TRUE(ways.shared);
}

}  // namespace
}  // namespace attnd::kernel
