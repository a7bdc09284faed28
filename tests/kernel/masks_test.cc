// Which keys a row sees: true lengths and starts, positions of each sequence, key bits and the causal mask, together.
#include <cmath>
#include <functional>
#include <limits>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "problem.h"

namespace attnd::kernel {
namespace {

using tensor::DType;

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<bool> Bits(std::int64_t count, const std::function<bool(std::int64_t)>& visible) {
  std::vector<bool> bits;
  for (std::int64_t i = 0; i < count; ++i) bits.push_back(visible(i));
  return bits;
}

// Every sequence of `spec` gets a share of its keys from each mask; the second one's true keys are few and late.
ProblemSpec Masked(ProblemSpec spec) {
  std::mt19937 random(7);
  spec.key_starts = {spec.keys / 5, spec.keys / 2 + 1};
  spec.key_lengths = {spec.keys - spec.keys / 7, spec.keys - 1};
  spec.query_offsets = {spec.query_offset - 3, spec.query_offset + 11};
  spec.key_bits = Bits(spec.batch * spec.keys, [&](std::int64_t) { return random() % 4 != 0; });
  return spec;
}

bool Sees(const Attention& a, const ProblemSpec& spec, std::int64_t b, std::int64_t row, std::int64_t key) {
  const auto at = static_cast<std::size_t>(b);
  const std::int64_t position = (spec.query_offsets.empty() ? spec.query_offset : spec.query_offsets[at]) + row;
  return (spec.key_starts.empty() || key >= spec.key_starts[at]) &&
         (spec.key_lengths.empty() || key < spec.key_lengths[at]) &&
         (spec.key_bits.empty() || spec.key_bits[static_cast<std::size_t>(b * a.key_length + key)]) &&
         (spec.mask == Mask::kNone || key <= position);
}

TEST(Masks, EachAloneAndAllTogether) {
  for (const ProblemSpec& spec : EveryWay()) {
    const ProblemSpec all = Masked(spec);
    ExpectKernelsAgree(all);
    if (spec.dtype == DType::kF16) continue;  // differs from fp32 in reading rows alone
    ProblemSpec one = spec;
    one.key_starts = all.key_starts;
    ExpectKernelsAgree(one);
    one = spec;
    one.query_offsets = all.query_offsets;
    ExpectKernelsAgree(one);
    one = spec;
    one.key_bits = all.key_bits;
    ExpectKernelsAgree(one);
  }
}

TEST(Masks, StartsAroundEveryEdge) {
  for (const std::int64_t queries : {2, 50, 390}) {
    for (const std::int64_t start : {1, 8, 15, 17, 47, 48, 49, 256, 257, 383, 384, 385, 399, 400}) {
      for (const Mask mask : {Mask::kCausal, Mask::kNone}) {
        ProblemSpec spec{.queries = queries, .keys = 400, .mask = mask, .query_offset = 400 - queries};
        spec.bias = mask == Mask::kCausal ? BiasKind::kCausal : BiasKind::kBidirectional;
        spec.head_dim = spec.value_head_dim = 16;
        spec.key_starts = {start};
        ExpectKernelsAgree(spec);
        spec.key_starts.clear();
        spec.key_bits = Bits(400, [start](std::int64_t j) { return j >= start; });
        ExpectKernelsAgree(spec);
        spec.key_bits = Bits(400, [start](std::int64_t j) { return j < start; });
        ExpectKernelsAgree(spec);
        spec.key_bits = Bits(400, [start](std::int64_t j) { return j != start; });
        ExpectKernelsAgree(spec);
        spec.key_bits = Bits(400, [start](std::int64_t j) { return j == start; });
        ExpectKernelsAgree(spec);
      }
    }
  }
}

// Whole tiles of keys, whole sequences, and the rows before the first true key see nothing: zeros, and -infinity.
TEST(Masks, RowsThatSeeNothing) {
  for (const std::int64_t queries : {1, 60, 900}) {
    ProblemSpec spec{.batch = 4, .queries = queries, .keys = 900, .query_offset = 900 - queries};
    spec.head_dim = spec.value_head_dim = 16;
    spec.key_starts = {900, 600, 0, 5};
    spec.key_lengths = {900, 500, 900, 900};
    spec.key_bits = Bits(4 * 900, [](std::int64_t j) { return j / 900 != 2 && (j % 900 < 100 || j % 900 >= 800); });
    Problem problem(spec);
    const Expected expected = Expect(problem);
    ExpectKernelsAgree(problem, expected);
    const std::size_t row = static_cast<std::size_t>(queries);
    EXPECT_TRUE(std::isinf(expected.log_sum_exp[0]));
    EXPECT_TRUE(std::isinf(expected.log_sum_exp[row]));
    EXPECT_TRUE(std::isinf(expected.log_sum_exp[2 * row]));
    EXPECT_TRUE(std::isfinite(expected.log_sum_exp[4 * row - 1]));
  }
}

// What a row may not see may hold anything: each row's bits stay those of a problem without it.
TEST(Masks, HiddenKeysHaveNoInfluence) {
  for (const ProblemSpec& plain : EveryWay()) {
    const ProblemSpec spec = Masked(plain);
    Problem clean(spec);
    Problem poisoned(spec);
    const Attention& a = clean.attention();
    std::int64_t hidden = 0;
    for (std::int64_t b = 0; b < a.batch; ++b) {
      for (std::int64_t key = 0; key < a.key_length; ++key) {
        if (Sees(a, spec, b, a.query_length - 1, key)) continue;  // the last row sees whatever any row sees
        ++hidden;
        for (std::int64_t g = 0; g < a.kv_heads; ++g) {
          const std::int64_t at = (b * a.kv_heads + g) * a.key_length + key;
          const float poison = key % 3 == 0 ? kNaN : key % 3 == 1 ? kInfinity : -kInfinity;
          for (std::int64_t d = 0; d < a.head_dim; ++d) {
            poisoned.k[static_cast<std::size_t>(at * a.head_dim + d)] = poison;
          }
          for (std::int64_t d = 0; d < a.value_head_dim; ++d) {
            poisoned.v[static_cast<std::size_t>(at * a.value_head_dim + d)] = poison;
          }
        }
      }
    }
    ASSERT_GT(hidden, a.key_length / 2);
    poisoned.Rebuild();
    ExpectSameBits(poisoned, clean);
  }
}

// An infinite query, and infinite values that only some rows see, beside hidden keys.
TEST(Masks, InfinitiesStayWhereTheyAreSeen) {
  for (const ProblemSpec& plain : EveryWay()) {
    const ProblemSpec spec = Masked(plain);
    Problem problem(spec);
    problem.q[0] = kInfinity;
    for (std::size_t i = 0; i < problem.v.size(); i += 48 * 29) problem.v[i] = kInfinity;
    problem.Rebuild();
    ExpectKernelsAgree(problem, Expect(problem));
  }
}

TEST(Masks, BitsDoNotDependOnThreads) {
  for (const ProblemSpec& plain : EveryWay()) {
    Problem problem(Masked(plain));
    ExpectBitsDoNotDependOnThreads(problem);
  }
}

// Bits that hide nothing give the bits of the problem without them, and starts those of bits that hide the same keys
// where both cut the keys alike.
TEST(Masks, BitsThatHideNothingChangeNothing) {
  for (const ProblemSpec& plain : EveryWay()) {
    ProblemSpec spec = plain;
    spec.key_bits = Bits(spec.batch * spec.keys, [](std::int64_t) { return true; });
    spec.key_starts = {0, 0};
    spec.query_offsets = {spec.query_offset, spec.query_offset};
    Problem problem(plain);
    Problem same(spec);
    ExpectSameBits(same, problem);
    spec.key_bits = Bits(spec.batch * spec.keys, [&](std::int64_t j) { return j % spec.keys >= 9; });
    Problem by_bits(spec);
    spec.key_bits.clear();
    spec.key_starts = {9, 9};
    Problem by_start(spec);
    ExpectSameBits(by_bits, by_start);
  }
}

}  // namespace
}  // namespace attnd::kernel
