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

TEST(RequestTest, QueryOffsetsAreInTheRangeOfOne) {
  const std::vector<std::int64_t> outermost = {-7, kMaxPosition - 7};
  EXPECT_FALSE(CheckQueryOffsets({}, false, 2, 7).has_value());
  EXPECT_FALSE(CheckQueryOffsets({}, true, 2, 7).has_value());
  EXPECT_FALSE(CheckQueryOffsets(outermost, false, 2, 7).has_value());
  EXPECT_EQ(CheckQueryOffsets(outermost, true, 2, 7)->expected, "none beside query_offset");
  EXPECT_EQ(CheckQueryOffsets(outermost, false, 3, 7)->expected, "none or 3 (batch) values");
  EXPECT_EQ(CheckQueryOffsets(outermost, false, 2, 6)->field, "query_offsets[0]");
  EXPECT_EQ(CheckQueryOffsets(outermost, false, 2, 8)->field, "query_offsets[1]");
}

TEST(RequestTest, KeyBitsAreWholeBytesOfEachSequence) {
  EXPECT_EQ(KeyBitsBytes(1), 1);
  EXPECT_EQ(KeyBitsBytes(8), 1);
  EXPECT_EQ(KeyBitsBytes(9), 2);
  EXPECT_EQ(KeyBitsBytes(kMost), kMost / 8 + 1);
  EXPECT_FALSE(CheckKeyBits(0, 3, 9).has_value());
  EXPECT_FALSE(CheckKeyBits(6, 3, 9).has_value());
  for (const std::size_t bad : {1U, 2U, 3U, 4U, 5U, 7U, 8U, 12U, 27U})
    EXPECT_TRUE(CheckKeyBits(bad, 3, 9).has_value()) << bad;
  const std::optional<Fault> fault = CheckKeyBits(5, 3, 9);
  EXPECT_EQ(fault->field, "key_bits");
  EXPECT_EQ(fault->expected, "none or 3 (batch) x 2 bytes (a bit for each of 9 keys)");
  EXPECT_EQ(fault->got, "5 bytes");
}

// 2^61 x 2^3 bytes are 2^64: 0 to whoever multiplies.
TEST(RequestTest, KeyBitsOfSizesWhoseProductOverflows) {
  for (const std::size_t bytes : {1U, 8U, 64U}) {
    EXPECT_TRUE(CheckKeyBits(bytes, std::int64_t{1} << 61, 64).has_value()) << bytes;
    EXPECT_TRUE(CheckKeyBits(bytes, (std::int64_t{1} << 61) + 1, 64).has_value()) << bytes;
    EXPECT_TRUE(CheckKeyBits(bytes, kMost, kMost).has_value()) << bytes;
  }
}

TEST(RequestTest, WithoutBiasNothingOfAModelIsNamed) {
  EXPECT_FALSE(CheckNoModel({}).has_value());
  EXPECT_EQ(CheckNoModel({.model = "m"})->field, "model");
  EXPECT_EQ(CheckNoModel({.version = 1})->field, "version");
  EXPECT_EQ(CheckNoModel({.table = "encoder"})->field, "table");
  EXPECT_EQ(CheckNoModel({.first_head = 0})->field, "first_head");
  EXPECT_EQ(CheckNoModel({.table_heads = 1})->field, "table_heads");
  EXPECT_EQ(CheckNoModel({.model = "m"})->expected, "none with BIAS_NONE");
  EXPECT_EQ(CheckNoModel({.model = "m"})->got, "\"m\"");
}

}  // namespace
}  // namespace attnd::contract
