#include "bias/bias_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace attnd::bias {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kLargest = std::numeric_limits<float>::max();

BiasTable Make(std::int64_t heads, Rule rule) {
  auto table = BiasTable::Create(heads, std::move(rule));
  EXPECT_TRUE(table.ok()) << table.status();
  return *std::move(table);
}

// The book's table: nb = 3, dist_max = 5.
BiasTable Book() { return Make(1, T5Rule{4, 5, false, {10, 11, 12, 13}}); }

TEST(BiasTableTest, TheBooksSixBySixGrid) {
  const BiasTable book = Book();
  const std::vector<std::vector<std::int64_t>> grid = {{0},          {1, 0},          {2, 1, 0},
                                                       {2, 2, 1, 0}, {3, 2, 2, 1, 0}, {3, 3, 2, 2, 1, 0}};
  for (std::size_t query = 0; query < grid.size(); ++query) {
    for (std::size_t key = 0; key <= query; ++key) {
      EXPECT_EQ(book.Bucket(static_cast<std::int64_t>(query) - static_cast<std::int64_t>(key)), grid[query][key]);
    }
  }
}

TEST(BiasTableTest, ACausalTablePutsLaterKeysIntoBucketZero) {
  const BiasTable book = Book();
  EXPECT_FALSE(book.bidirectional());
  for (const std::int64_t offset : {std::int64_t{-1}, std::int64_t{-1000}, INT64_MIN}) {
    EXPECT_EQ(book.Bucket(offset), 0);
    EXPECT_EQ(book.Value(0, offset), 10.0F);
  }
}

TEST(BiasTableTest, ABidirectionalTableHasBucketsOnBothSides) {
  const BiasTable table = Make(1, T5Rule{8, 5, true, {0, 1, 2, 3, 4, 5, 6, 7}});
  EXPECT_TRUE(table.bidirectional());
  std::vector<std::int64_t> buckets;
  for (std::int64_t offset = -5; offset <= 5; ++offset) buckets.push_back(*table.Bucket(offset));
  EXPECT_THAT(buckets, ElementsAre(7, 7, 6, 6, 5, 0, 1, 2, 2, 3, 3));
  EXPECT_EQ(table.Bucket(INT64_MIN), 7);
  EXPECT_EQ(table.Bucket(INT64_MAX), 3);
}

TEST(BiasTableTest, ABucketsRangeIsWhereTheTablePutsItsOffsets) {
  struct Shape {
    std::int64_t num_buckets, max_distance;
    bool bidirectional;
  };
  for (const auto& [num_buckets, max_distance, bidirectional] :
       {Shape{4, 5, false}, Shape{2, 3, false}, Shape{32, 128, false}, Shape{32, 128, true}, Shape{9, 20, true}}) {
    const BiasTable table = Make(
        1, T5Rule{num_buckets, max_distance, bidirectional, std::vector<float>(static_cast<std::size_t>(num_buckets))});
    for (std::int64_t offset = -2 * max_distance; offset <= 2 * max_distance; ++offset) {
      const OffsetRange range = table.OffsetsOf(*table.Bucket(offset));
      ASSERT_TRUE(range.min.value_or(INT64_MIN) <= offset && offset <= range.max.value_or(INT64_MAX)) << offset;
      // Each end is where the bucket ends, and is missing only where it goes on for ever.
      for (const std::int64_t end : {range.min.value_or(INT64_MIN), range.max.value_or(INT64_MAX)}) {
        ASSERT_EQ(table.Bucket(end), table.Bucket(offset)) << offset;
      }
      if (range.min.has_value()) {
        ASSERT_NE(table.Bucket(*range.min - 1), table.Bucket(offset)) << offset;
      }
      if (range.max.has_value()) {
        ASSERT_NE(table.Bucket(*range.max + 1), table.Bucket(offset)) << offset;
      }
    }
  }
  EXPECT_EQ(Book().OffsetsOf(3), (OffsetRange{4, std::nullopt}));
  EXPECT_EQ(Book().OffsetsOf(0), (OffsetRange{std::nullopt, 0}));
}

TEST(BiasTableTest, ATableMadeFor128ServesAnyLength) {
  std::vector<float> values(32);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  const BiasTable table = Make(1, T5Rule{32, 128, false, values});
  for (const std::int64_t offset : {std::int64_t{113}, std::int64_t{128}, std::int64_t{1} << 20, INT64_MAX}) {
    EXPECT_EQ(table.Value(0, offset), 31.0F) << offset;
  }
}

TEST(BiasTableTest, ValuesAreByBucketThenHead) {
  const BiasTable table = Make(2, T5Rule{4, 5, false, {0, 100, 1, 101, 2, 102, 3, 103}});
  EXPECT_EQ(table.Value(0, 3), 2.0F);
  EXPECT_EQ(table.Value(1, 3), 102.0F);
}

TEST(BiasTableTest, AlibiFallsWithDistance) {
  const BiasTable table = Make(2, AlibiRule{true, {0.5F, 0.25F}});
  EXPECT_FALSE(table.Bucket(3).has_value());
  EXPECT_TRUE(table.bidirectional());
  EXPECT_EQ(table.Value(0, 4), -2.0F);
  EXPECT_EQ(table.Value(1, -4), -1.0F);
  EXPECT_EQ(table.Value(0, 0), 0.0F);
  EXPECT_FALSE(std::signbit(table.Value(0, 0)));
}

TEST(BiasTableTest, PerOffsetTakesTheNearerEnd) {
  const BiasTable table = Make(2, PerOffsetRule{-1, {1, 2, 3, 11, 12, 13}});
  EXPECT_TRUE(table.bidirectional());
  EXPECT_EQ(table.Value(0, -1), 1.0F);
  EXPECT_EQ(table.Value(0, -9), 1.0F);
  EXPECT_EQ(table.Value(1, 0), 12.0F);
  EXPECT_EQ(table.Value(1, 99), 13.0F);
  EXPECT_FALSE(Make(1, PerOffsetRule{0, {5}}).bidirectional());
}

TEST(BiasTableTest, RefusesInvalidRules) {
  struct Case {
    std::int64_t heads;
    Rule rule;
    std::string says;
  };
  const Case cases[] = {
      {0, T5Rule{4, 5, false, {}}, "heads: expected at least 1, got 0"},
      {-1, AlibiRule{false, {}}, "heads"},
      {1, T5Rule{1, 5, false, {1}}, "num_buckets: expected at least 2, got 1"},
      {1, T5Rule{3, 5, true, {1, 2, 3}}, "num_buckets: expected at least 4 (bidirectional), got 3"},
      {1, T5Rule{4, 2, false, {1, 2, 3, 4}}, "max_distance: expected more than 2"},
      {2, T5Rule{4, 5, false, {1, 2, 3, 4}}, "values: expected 4 buckets x 2 heads, got 4"},
      {INT64_MAX, T5Rule{4, 5, false, {1, 2, 3, 4}}, "values: expected"},
      {1, T5Rule{4, 5, false, {1, 2, kNan, 4}}, "values[2]: expected a finite value, got nan"},
      {1, T5Rule{4, 5, false, {1, 2, 3, -kInfinity}}, "values[3]"},
      {1, T5Rule{4, 5, false, {kLargest, 2, 3, -kLargest}}, "differences within a head that a float holds"},
      {2, AlibiRule{false, {1}}, "slopes: expected 2 (one per head), got 1"},
      {1, AlibiRule{false, {kNan}}, "slopes"},
      {1, AlibiRule{false, {kLargest}}, "slopes[0]: expected a finite value up to 2^64"},
      {2, PerOffsetRule{0, {1, 2, 3}}, "values: expected a multiple of 2 heads"},
      {1, PerOffsetRule{0, {}}, "values"},
      {1, PerOffsetRule{0, {kInfinity}}, "values[0]"},
      {1, PerOffsetRule{INT64_MIN, {1}}, "min_offset"},
      {1, PerOffsetRule{INT64_MAX, {1}}, "min_offset"},
  };
  for (const Case& c : cases) {
    const auto table = BiasTable::Create(c.heads, c.rule);
    EXPECT_EQ(table.status().code(), absl::StatusCode::kInvalidArgument) << c.says;
    EXPECT_THAT(std::string(table.status().message()), HasSubstr(c.says));
  }
}

// Each limit: what is exactly as large is accepted, and the next larger is not.
TEST(BiasTableTest, LimitsAreExact) {
  constexpr std::int64_t kStart = std::int64_t{1} << 32, kDistance = std::int64_t{1} << 48;
  struct Case {
    Rule rule;
    bool valid;
  };
  const Case cases[] = {
      {AlibiRule{false, {0x1p64F}}, true},
      {AlibiRule{false, {-0x1p64F}}, true},
      {AlibiRule{false, {std::nextafter(0x1p64F, kInfinity)}}, false},
      {AlibiRule{false, {std::nextafter(-0x1p64F, -kInfinity)}}, false},
      {PerOffsetRule{kStart, {1}}, true},
      {PerOffsetRule{kStart + 1, {1}}, false},
      {PerOffsetRule{-kStart, {1}}, true},
      {PerOffsetRule{-kStart - 1, {1}}, false},
      {PerOffsetRule{0, {kLargest}}, true},
      {PerOffsetRule{0, {kLargest, 0}}, true},
      {PerOffsetRule{0, {kLargest, -kLargest}}, false},
      {T5Rule{2, 2, false, {1, 2}}, true},
      {T5Rule{2, 1, false, {1, 2}}, false},
      {T5Rule{4, 2, true, {1, 2, 3, 4}}, true},
      {T5Rule{4, 1, true, {1, 2, 3, 4}}, false},
      {T5Rule{2, 3, false, {1, 2, 3}}, false},
      {T5Rule{2, 3, false, {1}}, false},
  };
  for (std::size_t i = 0; i < std::size(cases); ++i) {
    const absl::Status status = BiasTable::Create(1, cases[i].rule).status();
    EXPECT_EQ(status.ok(), cases[i].valid) << i << ": " << status;
    EXPECT_TRUE(status.ok() || absl::IsInvalidArgument(status)) << i << ": " << status;
  }
  const T5Rule far{2, kDistance + 1, false, {1, 2}};
  EXPECT_THAT(std::string(BiasTable::Create(1, far).status().message()), HasSubstr("max_distance: expected at most"));
  for (const Rule& rule : {Rule(T5Rule{32, 128, true, std::vector<float>(96)}), Rule(AlibiRule{true, {1, 2, 3}}),
                           Rule(PerOffsetRule{-2, std::vector<float>(15)})}) {
    const auto needed = static_cast<std::int64_t>(Make(3, rule).offset_form().values.size());
    EXPECT_TRUE(BiasTable::Create(3, rule, needed).ok());
    EXPECT_EQ(BiasTable::Create(3, rule, needed - 1).status().code(), absl::StatusCode::kResourceExhausted);
  }
}

TEST(BiasTableTest, RefusesAFormThatIsTooLarge) {
  const T5Rule rule{32, std::int64_t{1} << 40, false, std::vector<float>(32)};
  EXPECT_EQ(BiasTable::Create(1, rule).status().code(), absl::StatusCode::kResourceExhausted);
  const T5Rule small{32, 128, false, std::vector<float>(32)};
  EXPECT_TRUE(BiasTable::Create(1, small, 114).ok());
  EXPECT_EQ(BiasTable::Create(1, small, 113).status().code(), absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace attnd::bias
