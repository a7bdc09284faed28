#include "heap/trimmer.h"

#include "gtest/gtest.h"

namespace attnd::heap {
namespace {

constexpr std::size_t kMebibyte = std::size_t{1} << 20;

TEST(KeptMemoryTest, IsTwiceTheLargestPeakOfTheLastIntervals) {
  KeptMemory kept;
  EXPECT_EQ(kept.Next(0), KeptMemory::kFloorBytes);
  EXPECT_EQ(kept.Next(static_cast<std::int64_t>(100 * kMebibyte)), 200 * kMebibyte);
  EXPECT_EQ(kept.Next(static_cast<std::int64_t>(50 * kMebibyte)), 200 * kMebibyte);
  for (std::size_t i = 2; i < KeptMemory::kIntervals; ++i) EXPECT_EQ(kept.Next(0), 200 * kMebibyte) << i;
  EXPECT_EQ(kept.Next(0), 100 * kMebibyte);
  EXPECT_EQ(kept.Next(0), KeptMemory::kFloorBytes);
}

}  // namespace
}  // namespace attnd::heap
