#include "contract/request.h"

#include <limits>
#include <vector>

#include "gtest/gtest.h"

namespace attnd::contract {
namespace {

constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t kLeast = std::numeric_limits<std::int64_t>::min();

TEST(RequestTest, RangesIncludeTheirEnds) {
  for (const std::int64_t good : {-2, 0, 3}) EXPECT_FALSE(CheckRange("batch", good, -2, 3).has_value()) << good;
  for (const std::int64_t bad : {std::int64_t{-3}, std::int64_t{4}, kMost, kLeast}) {
    EXPECT_TRUE(CheckRange("batch", bad, -2, 3).has_value()) << bad;
  }
  const std::optional<Fault> fault = CheckRange("batch", 4, -2, 3);
  EXPECT_EQ(fault->field, "batch");
  EXPECT_EQ(fault->expected, "-2 to 3");
  EXPECT_EQ(fault->got, "4");
}

TEST(RequestTest, KeyHeadsDivideHeads) {
  for (const std::int64_t good : {1, 2, 3, 4, 6, 12}) EXPECT_FALSE(CheckKeyHeads(12, good).has_value()) << good;
  for (const std::int64_t bad : {5, 7, 8, 13, 24}) EXPECT_TRUE(CheckKeyHeads(12, bad).has_value()) << bad;
  EXPECT_EQ(CheckKeyHeads(12, 5)->expected, "a divisor of heads, which is 12");
}

TEST(RequestTest, ScalesAreFinite) {
  for (const float good : {0.0F, -1.0F, std::numeric_limits<float>::max()}) EXPECT_FALSE(CheckScale(good).has_value());
  for (const float bad : {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
                          std::numeric_limits<float>::quiet_NaN()}) {
    EXPECT_TRUE(CheckScale(bad).has_value()) << bad;
  }
}

TEST(RequestTest, QueriesEndBelowTheLastPosition) {
  EXPECT_FALSE(CheckQueryOffset(-7, 7).has_value());
  EXPECT_TRUE(CheckQueryOffset(-8, 7).has_value());
  EXPECT_FALSE(CheckQueryOffset(kMaxPosition - 7, 7).has_value());
  EXPECT_TRUE(CheckQueryOffset(kMaxPosition - 6, 7).has_value());
  EXPECT_TRUE(CheckQueryOffset(kMost, 7).has_value());
  EXPECT_TRUE(CheckQueryOffset(kLeast, 7).has_value());
}

TEST(RequestTest, LengthsAreNoneOrOneForEachSequence) {
  const std::vector<std::int64_t> lengths = {0, 5};
  EXPECT_FALSE(CheckLengths("key_lengths", {}, 2, 5).has_value());
  EXPECT_FALSE(CheckLengths("key_lengths", lengths, 2, 5).has_value());
  EXPECT_EQ(CheckLengths("key_lengths", lengths, 3, 5)->field, "key_lengths");
  EXPECT_EQ(CheckLengths("key_lengths", lengths, 1, 5)->expected, "none or 1 (batch) values");
  EXPECT_EQ(CheckLengths("key_lengths", lengths, 2, 4)->field, "key_lengths[1]");
  EXPECT_EQ(CheckLengths("key_lengths", std::vector<std::int64_t>{-1, 5}, 2, 5)->field, "key_lengths[0]");
}

}  // namespace
}  // namespace attnd::contract
