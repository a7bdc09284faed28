#include "schedule/warm_memory.h"

#include <cstdint>
#include <limits>
#include <vector>

#include "gtest/gtest.h"

namespace attnd::schedule {
namespace {

constexpr std::size_t kMebibyte = std::size_t{1} << 20;

TEST(WarmMemory, ComesBack) {
  WarmMemory first = TakeWarmMemory(5 * kMebibyte);
  ASSERT_NE(first, nullptr);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(first.get()) % 64, 0u);
  std::byte* const block = first.get();
  first.reset();
  EXPECT_GE(WarmBytes(), 5 * kMebibyte);
  const WarmMemory second = TakeWarmMemory(4 * kMebibyte);
  EXPECT_EQ(second.get(), block);
  EXPECT_NE(TakeWarmMemory(4 * kMebibyte).get(), block);
}

TEST(WarmMemory, IsNotWastedOnSmallBlocks) {
  WarmMemory large = TakeWarmMemory(40 * kMebibyte);
  std::byte* const block = large.get();
  large.reset();
  EXPECT_NE(TakeWarmMemory(kMebibyte).get(), block);
}

TEST(WarmMemory, KeepsNoMoreThanItsLimit) {
  std::vector<WarmMemory> blocks;
  for (int i = 0; i < 5; ++i) blocks.push_back(TakeWarmMemory(20 * kMebibyte));
  blocks.clear();
  EXPECT_LE(WarmBytes(), kMaxWarmBytes);
  EXPECT_GE(WarmBytes(), 40 * kMebibyte);
}

TEST(WarmMemory, ReportsThatThereIsNone) {
  EXPECT_EQ(TakeWarmMemory(std::numeric_limits<std::size_t>::max()), nullptr);
  EXPECT_EQ(TakeWarmMemory(std::numeric_limits<std::size_t>::max() / 4), nullptr);
}

}  // namespace
}  // namespace attnd::schedule
