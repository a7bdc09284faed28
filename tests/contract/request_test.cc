#include "contract/request.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
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

TEST(RequestTest, WindowsReachFromZeroToTheLastPosition) {
  EXPECT_FALSE(CheckWindow("window_left", std::nullopt).has_value());
  for (const std::int64_t good : {std::int64_t{0}, std::int64_t{1}, kMaxPosition}) {
    EXPECT_FALSE(CheckWindow("window_left", good).has_value()) << good;
  }
  for (const std::int64_t bad : {std::int64_t{-1}, kMaxPosition + 1, kMost, kLeast}) {
    EXPECT_EQ(CheckWindow("window_left", bad)->field, "window_left") << bad;
  }
}

TEST(RequestTest, PrefixesEndWithTheKeysAndNeedACausalMask) {
  const std::vector<std::int64_t> lengths = {0, 5};
  EXPECT_FALSE(CheckPrefixLengths(lengths, true, 2, 5).has_value());
  EXPECT_FALSE(CheckPrefixLengths({}, false, 2, 5).has_value());
  EXPECT_EQ(CheckPrefixLengths(lengths, true, 2, 4)->field, "prefix_lengths[1]");
  EXPECT_EQ(CheckPrefixLengths(std::vector<std::int64_t>{-1, 5}, true, 2, 5)->field, "prefix_lengths[0]");
  EXPECT_EQ(CheckPrefixLengths(lengths, true, 3, 5)->expected, "none or 3 (batch) values");
  EXPECT_EQ(CheckPrefixLengths(lengths, false, 2, 5)->expected, "none without a causal mask");
}

TEST(RequestTest, KeyBiasesAreFiniteAndOneForEachHeadAndKey) {
  std::vector<float> bias(6, 1.0F);
  EXPECT_FALSE(CheckKeyBias({}, 2, 3).has_value());
  EXPECT_FALSE(CheckKeyBias(bias, 2, 3).has_value());
  EXPECT_FALSE(CheckKeyBias(bias, 1, 6).has_value());
  for (const auto& [heads, keys] : {std::pair{1, 3}, {3, 3}, {2, 2}, {2, 4}, {1, 5}, {1, 7}, {6, 2}}) {
    EXPECT_EQ(CheckKeyBias(bias, heads, keys)->field, "key_bias") << heads << " x " << keys;
  }
  EXPECT_TRUE(CheckKeyBias(bias, kMost / 3 + 1, 6).has_value()) << "products that overflow";
  for (std::size_t i = 0; i < bias.size(); ++i) {
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                            -std::numeric_limits<float>::infinity()}) {
      bias[i] = bad;
      EXPECT_EQ(CheckKeyBias(bias, 2, 3)->field, absl::StrCat("key_bias[", i, "]")) << bad;
    }
    bias[i] = std::numeric_limits<float>::max();
    EXPECT_FALSE(CheckKeyBias(bias, 2, 3).has_value());
  }
}

TEST(RequestTest, KvRowsAreRowsOfKeysAndValues) {
  EXPECT_FALSE(CheckKvRows({}, 3, 3).has_value());
  EXPECT_EQ(CheckKvRows({}, 2, 3)->got, "none");
  EXPECT_EQ(CheckKvRows({}, 4, 3)->got, "none");
  EXPECT_FALSE(CheckKvRows(std::vector<std::int64_t>{0, 1, 1}, 2, 3).has_value());
  EXPECT_FALSE(CheckKvRows(std::vector<std::int64_t>{2, 0, 1}, 3, 3).has_value());
  EXPECT_EQ(CheckKvRows(std::vector<std::int64_t>{0, 2, 1}, 2, 3)->field, "kv_rows[1]") << "one past the last";
  EXPECT_EQ(CheckKvRows(std::vector<std::int64_t>{0, 1, -1}, 2, 3)->field, "kv_rows[2]");
  EXPECT_EQ(CheckKvRows(std::vector<std::int64_t>{0, 1}, 2, 3)->expected, "none or 3 (batch) values");
  EXPECT_EQ(CheckKvRows(std::vector<std::int64_t>{0, 1, 0, 1}, 2, 3)->expected, "none or 3 (batch) values");
}

// What segments may be is decided by a plain walk over the rows; every list of up to three starts is tried.
TEST(RequestTest, SegmentsBeginEachRowAndAscend) {
  const auto valid = [](const std::vector<std::int64_t>& starts, std::int64_t batch, std::int64_t length) {
    for (std::size_t i = 0; i < starts.size(); ++i) {
      if (starts[i] < 0 || starts[i] >= batch * length || (i > 0 && starts[i] <= starts[i - 1])) return false;
    }
    for (std::int64_t row = 0; row < batch; ++row) {
      if (std::find(starts.begin(), starts.end(), row * length) == starts.end()) return false;
    }
    return true;
  };
  std::vector<std::vector<std::int64_t>> lists;
  for (std::int64_t a = -1; a <= 7; ++a) {
    lists.push_back({a});
    for (std::int64_t b = -1; b <= 7; ++b) {
      lists.push_back({a, b});
      for (std::int64_t c = -1; c <= 7; ++c) lists.push_back({a, b, c});
    }
  }
  for (const std::int64_t batch : {1, 2, 3}) {
    for (const std::int64_t length : {1, 2, 3}) {
      for (const std::vector<std::int64_t>& starts : lists) {
        EXPECT_EQ(!CheckSegments(starts, {}, batch, length, length).has_value(), valid(starts, batch, length))
            << batch << " x " << length << ": " << absl::StrJoin(starts, " ");
      }
    }
  }
}

TEST(RequestTest, KeySegmentsAreInTheRowsOfTheQueries) {
  using List = std::vector<std::int64_t>;
  const List queries = {0, 1, 2};  // two rows of two queries
  struct Case {
    List queries, keys;
    std::string field;  // empty: accepted
  };
  const Case cases[] = {{{}, {}, ""},
                        {{}, {0}, "key_segments"},
                        {queries, {0, 2, 3}, ""},
                        {queries, {0, 1, 3}, ""},
                        {queries, {0, 3, 4}, "key_segments[1]"},
                        {queries, {0, 1, 4}, "key_segments[2]"},
                        {queries, {0, 1, 2}, "key_segments[2]"},
                        {queries, {0, 1, 6}, "key_segments[2]"},
                        {queries, {1, 2, 3}, "key_segments[0]"},
                        {queries, {0, 0, 3}, "key_segments[1]"},
                        {queries, {0, 3}, "key_segments"},
                        {queries, {0, 1, 3, 4}, "key_segments"},
                        {queries, {}, "key_segments"},  // the lengths differ
                        {{0, 1, 3}, {0, 1, 3}, "query_segments[2]"},
                        {{0, 1}, {0, 1}, "query_segments"},
                        {{0, 2, 4}, {0, 3, 4}, "query_segments[2]"}};
  for (const Case& c : cases) {
    const std::optional<Fault> fault = CheckSegments(c.queries, c.keys, 2, 2, 3);
    EXPECT_EQ(fault.has_value() ? fault->field : "", c.field)
        << absl::StrJoin(c.queries, " ") << " and " << absl::StrJoin(c.keys, " ");
  }
  EXPECT_FALSE(CheckSegments(List{0, kMost - 1}, {}, 1, kMost, kMost).has_value()) << "products do not overflow";
  EXPECT_TRUE(CheckSegments(List{0}, {}, kMost, kMost, kMost).has_value());
}

TEST(RequestTest, BesideSegmentsNoFieldThatTheyReplaceIsSet) {
  EXPECT_FALSE(CheckBesideSegments({}).has_value());
  EXPECT_EQ(CheckBesideSegments({.query_offset = 1})->field, "query_offset");
  EXPECT_EQ(CheckBesideSegments({.query_offsets = 1})->field, "query_offsets");
  EXPECT_EQ(CheckBesideSegments({.query_lengths = 1})->field, "query_lengths");
  EXPECT_EQ(CheckBesideSegments({.key_lengths = 1})->field, "key_lengths");
  EXPECT_EQ(CheckBesideSegments({.key_starts = 1})->field, "key_starts");
  EXPECT_EQ(CheckBesideSegments({.key_bits = 1})->field, "key_bits");
  EXPECT_EQ(CheckBesideSegments({.prefix_lengths = 1})->field, "prefix_lengths");
  EXPECT_EQ(CheckBesideSegments({.key_bias = 1})->field, "key_bias");
  EXPECT_EQ(CheckBesideSegments({.kv_rows = 1})->field, "kv_rows");
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
