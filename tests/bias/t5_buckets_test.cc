#include "bias/t5_buckets.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "bias/hf_log.h"

namespace attnd::bias {
namespace {

using ::testing::ElementsAre;

TEST(T5BucketsTest, TheBooksExample) {  // nb = 3, dist_max = 5
  const std::vector<std::int64_t> first = FirstDistances(4, 5);
  EXPECT_THAT(first, ElementsAre(0, 1, 2, 4));
  std::vector<std::int64_t> buckets;
  for (std::int64_t distance = 0; distance < 8; ++distance) buckets.push_back(BucketOfDistance(first, distance));
  EXPECT_THAT(buckets, ElementsAre(0, 1, 2, 2, 3, 3, 3, 3));
}

TEST(T5BucketsTest, TheLastOfThirtyTwoBeginsAt113) {
  const std::vector<std::int64_t> first = FirstDistances(32, 128);
  EXPECT_EQ(first.back(), 113);
  EXPECT_EQ(BucketOfDistance(first, 112), 30);
  EXPECT_EQ(BucketOfDistance(first, 113), 31);
  EXPECT_EQ(BucketOfDistance(first, INT64_MAX), 31);
}

// Where a bucket's edge is an exact power, a logarithm one ulp low would move it.
TEST(T5BucketsTest, ExactPowersBeginTheirBucket) {
  const std::vector<std::int64_t> first = FirstDistances(32, 256);
  for (const std::int64_t power : {32, 64, 128}) {
    EXPECT_EQ(BucketOfDistance(first, power), BucketOfDistance(first, power - 1) + 1) << power;
  }
}

TEST(T5BucketsTest, FirstDistancesNeverFall) {
  for (std::int64_t buckets = 2; buckets < 70; ++buckets) {
    for (const std::int64_t extra : {1, 2, 3, 10, 100, 12345, 1 << 30}) {
      const std::vector<std::int64_t> first = FirstDistances(buckets, buckets / 2 + extra);
      ASSERT_EQ(first.size(), static_cast<std::size_t>(buckets));
      ASSERT_EQ(first.front(), 0);
      ASSERT_TRUE(std::is_sorted(first.begin(), first.end())) << buckets << " " << extra;
      ASSERT_LE(first.back(), buckets / 2 + extra);
    }
  }
}

TEST(T5BucketsTest, TheLargestDistanceIsFoundWithoutOverflow) {
  for (const std::int64_t buckets : {2, 3, 4, 33, 1 << 20}) {
    const std::vector<std::int64_t> first = FirstDistances(buckets, std::int64_t{1} << 48);
    EXPECT_LE(first.back(), std::int64_t{1} << 48);
    EXPECT_EQ(BucketOfDistance(first, INT64_MAX), buckets - 1);
  }
}

TEST(T5BucketsTest, RefusesWhatTheFormulaCannotDo) {
  struct Case {
    std::int64_t num_buckets;
    std::int64_t max_distance;
    bool bidirectional;
    bool valid;
  };
  const Case cases[] = {
      {2, 2, false, true},
      {1, 8, false, false},
      {0, 8, false, false},
      {-4, 8, false, false},
      {4, 2, true, true},
      {3, 8, true, false},
      {2, 8, true, false},
      {32, 16, false, false},
      {32, 17, false, true},
      {33, 16, false, false},
      {32, 8, true, false},
      {32, 9, true, true},
      {32, 0, false, false},
      {32, -5, false, false},
      {32, INT64_MIN, true, false},
      {INT64_MAX, 128, false, false},
      {32, INT64_MAX, false, false},
      {32, std::int64_t{1} << 48, false, true},
  };
  for (const Case& c : cases) {
    EXPECT_EQ(CheckT5(c.num_buckets, c.max_distance, c.bidirectional).ok(), c.valid)
        << c.num_buckets << "/" << c.max_distance << " " << c.bidirectional;
  }
}

TEST(HuggingFaceLogTest, FollowsPyTorchWhereItDecides) {
  // torch.log(torch.tensor(1.5)) is the float above the nearest one to log(3/2).
  EXPECT_EQ(RoundedLog(1.5), 0x1.9f323ep-2F);
  EXPECT_EQ(HuggingFaceLog(1.5F), 0x1.9f3240p-2F);
  EXPECT_EQ(HuggingFaceLog(2.0F), RoundedLog(2.0));
  EXPECT_EQ(HuggingFaceLog(1.0F), 0.0F);
}

}  // namespace
}  // namespace attnd::bias
