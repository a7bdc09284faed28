// Windows, prefixes and key biases: each alone, together, and with the other masks, around every edge.
#include <algorithm>
#include <cmath>
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

std::vector<std::int64_t> PrefixesOf(const ProblemSpec& spec) {
  return spec.mask == Mask::kCausal ? std::vector<std::int64_t>{spec.keys / 3, spec.keys - 1}
                                    : std::vector<std::int64_t>();
}

TEST(Windows, EachAloneAndAllTogether) {
  std::mt19937 random(3);
  for (const ProblemSpec& plain : EveryWay()) {
    ProblemSpec spec = plain;
    spec.left = plain.keys / 4;
    ExpectKernelsAgree(spec);
    spec = plain;
    spec.right = 2;
    ExpectKernelsAgree(spec);
    spec = plain;
    spec.prefix_lengths = PrefixesOf(spec);
    ExpectKernelsAgree(spec);
    spec = plain;
    spec.key_bias = true;
    ExpectKernelsAgree(spec);
    spec.left = plain.keys / 3;
    spec.right = 17;
    spec.prefix_lengths = PrefixesOf(spec);
    ExpectKernelsAgree(spec);
    spec.key_starts = {spec.keys / 5, spec.keys / 2 + 1};
    spec.key_lengths = {spec.keys - spec.keys / 7, spec.keys - 1};
    spec.query_offsets = {spec.query_offset - 3, spec.query_offset + 11};
    for (std::int64_t i = 0; i < spec.batch * spec.keys; ++i) spec.key_bits.push_back(random() % 4 != 0);
    ExpectKernelsAgree(spec);
  }
}

// Tiles of rows and keys, packets, panels and pairs end at these.
TEST(Windows, WidthsAroundEveryEdge) {
  for (const std::int64_t queries : {1, 50, 390}) {
    for (const std::int64_t width : {0, 1, 2, 7, 8, 15, 16, 17, 47, 48, 49, 95, 96, 97, 255, 256, 257, 383, 384, 385}) {
      for (const DType dtype : {DType::kF32, DType::kBF16}) {
        ProblemSpec spec{.queries = queries,
                         .keys = 400,
                         .head_dim = 16,
                         .value_head_dim = 16,
                         .dtype = dtype,
                         .query_offset = 400 - queries,
                         .precision = ProductPrecision::kBF16};
        spec.left = width;
        ExpectKernelsAgree(spec);
        spec.mask = Mask::kNone;
        spec.bias = BiasKind::kBidirectional;
        spec.right = width;
        ExpectKernelsAgree(spec);
        spec.left = kAnyDistance;
        spec.query_offset = 0;
        ExpectKernelsAgree(spec);
        spec.right = kAnyDistance;
        spec.mask = Mask::kCausal;
        spec.prefix_lengths = {width};
        ExpectKernelsAgree(spec);
        spec.right = 5;
        ExpectKernelsAgree(spec);
      }
    }
  }
}

// Before all keys and after all of them, rows see nothing: zeros, and -infinity.
TEST(Windows, RowsThatSeeNothing) {
  for (const std::int64_t offset : {-60, -10, 300, 420}) {
    ProblemSpec spec{.queries = 60, .keys = 300, .head_dim = 16, .value_head_dim = 16, .query_offset = offset};
    spec.mask = Mask::kNone;
    spec.bias = BiasKind::kBidirectional;
    spec.left = 30;
    spec.right = 3;
    Problem problem(spec);
    const Expected expected = Expect(problem);
    ExpectKernelsAgree(problem, expected);
    EXPECT_TRUE(std::any_of(expected.log_sum_exp.begin(), expected.log_sum_exp.end(),
                            [](double value) { return std::isinf(value); }));
  }
}

// A window that is wide enough, an empty prefix and a key bias of zeros give the bits of a call without them.
TEST(Windows, WhatHidesNothingChangesNothing) {
  for (const ProblemSpec& plain : EveryWay()) {
    ProblemSpec spec = plain;
    spec.left = spec.keys + 100;
    spec.right = spec.keys + 100;
    if (spec.mask == Mask::kCausal) spec.prefix_lengths = {0, 0};
    spec.query_offsets = {spec.query_offset, spec.query_offset};
    Problem problem(plain);
    Problem same(spec);
    ExpectSameBits(same, problem);
  }
}

// A prefix of all keys is no causal mask.
TEST(Windows, APrefixOfAllKeysIsNoMask) {
  for (ProblemSpec spec : EveryWay()) {
    if (spec.mask != Mask::kCausal) continue;
    ProblemSpec unmasked = spec;
    unmasked.mask = Mask::kNone;
    spec.prefix_lengths = {spec.keys, spec.keys};
    Problem problem(unmasked);
    const Expected expected = Expect(problem);
    Problem prefix(spec);
    ExpectKernelsAgree(prefix, expected);
  }
}

// What a row may not see may hold anything, before its window and after it.
TEST(Windows, HiddenKeysHaveNoInfluence) {
  for (const ProblemSpec& plain : EveryWay()) {
    ProblemSpec spec = plain;
    spec.left = spec.keys / 4 + 1;
    spec.right = 1;
    Problem clean(spec);
    Problem poisoned(spec);
    const Attention& a = clean.attention();
    // Those before the first row's window, which no row sees.
    std::int64_t hidden = 0;
    for (std::int64_t key = 0; key < a.key_length; ++key) {
      if (key >= a.query_offset - spec.left) continue;
      ++hidden;
      for (std::int64_t g = 0; g < a.batch * a.kv_heads; ++g) {
        const std::int64_t at = g * a.key_length + key;
        const float poison = key % 3 == 0 ? kNaN : key % 3 == 1 ? kInfinity : -kInfinity;
        for (std::int64_t d = 0; d < a.head_dim; ++d)
          poisoned.k[static_cast<std::size_t>(at * a.head_dim + d)] = poison;
        for (std::int64_t d = 0; d < a.value_head_dim; ++d) {
          poisoned.v[static_cast<std::size_t>(at * a.value_head_dim + d)] = poison;
        }
      }
    }
    if (hidden == 0) continue;
    poisoned.Rebuild();
    ExpectSameBits(poisoned, clean);
  }
}

// Infinite values that only some rows of a tile see: at the beginning of their windows, and at the end.
TEST(Windows, InfinitiesStayWhereTheyAreSeen) {
  for (const ProblemSpec& plain : EveryWay()) {
    for (const std::int64_t left : {2, 5, 64}) {
      ProblemSpec spec = plain;
      spec.left = left;
      spec.right = 3;
      spec.prefix_lengths = PrefixesOf(spec);
      Problem problem(spec);
      problem.q[0] = kInfinity;
      for (std::size_t i = 0; i < problem.v.size(); i += 48 * 29) problem.v[i] = kInfinity;
      problem.Rebuild();
      ExpectKernelsAgree(problem, Expect(problem));
    }
  }
}

TEST(Windows, BitsDoNotDependOnThreads) {
  for (const ProblemSpec& plain : EveryWay()) {
    ProblemSpec spec = plain;
    spec.left = 70;
    spec.prefix_lengths = PrefixesOf(spec);
    spec.key_bias = true;
    Problem problem(spec);
    ExpectBitsDoNotDependOnThreads(problem);
  }
}

TEST(Windows, RandomProblems) {
  std::mt19937 random(17);
  const auto below = [&random](std::int64_t n) {
    return static_cast<std::int64_t>(random() % static_cast<unsigned>(n));
  };
  for (int i = 0; i < 60; ++i) {
    ProblemSpec spec{.batch = 1 + below(3), .heads = 2, .kv_heads = 1 + below(2)};
    spec.queries = 1 + below(i % 3 == 0 ? 6 : 260);
    spec.keys = 1 + below(700);
    spec.head_dim = 1 + below(40);
    spec.value_head_dim = 1 + below(40);
    spec.dtype = i % 2 == 0 ? DType::kF32 : DType::kBF16;
    spec.precision = ProductPrecision::kBF16;
    spec.mask = below(2) == 0 ? Mask::kCausal : Mask::kNone;
    spec.bias = below(2) == 0 ? BiasKind::kBidirectional : BiasKind::kSlopes;
    spec.query_offset = below(spec.keys) - below(spec.queries);
    if (below(3) != 0) spec.left = below(300);
    if (below(3) != 0) spec.right = below(100);
    if (spec.mask == Mask::kCausal && below(2) == 0) {
      for (std::int64_t b = 0; b < spec.batch; ++b) spec.prefix_lengths.push_back(below(spec.keys + 1));
    }
    spec.key_bias = below(2) == 0;
    spec.seed = static_cast<std::uint32_t>(i);
    ExpectKernelsAgree(spec);
  }
}

}  // namespace
}  // namespace attnd::kernel
