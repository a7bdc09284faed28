#include "schedule/arena.h"

#include <cstdint>
#include <cstring>

#include "gtest/gtest.h"

namespace attnd::schedule {
namespace {

TEST(Arena, HoldsNothingUntilAsked) { EXPECT_EQ(Arena().capacity(), 0u); }

// Every byte asked for is writable (AddressSanitizer says so), whatever was asked for before.
TEST(Arena, GivesAlignedMemoryOfTheSizeAskedFor) {
  Arena arena;
  for (const std::size_t bytes : {1U, 64U, 65U, 4096U, 3U, 1000003U, 0U, 70000U}) {
    std::byte* const block = arena.Get(bytes);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(block) % 64, 0u) << bytes;
    EXPECT_GE(arena.capacity(), bytes);
    std::memset(block, 0x5a, bytes);
  }
}

TEST(Arena, GrowsToTheLargestSizeAndStays) {
  Arena arena;
  arena.Get(100);
  std::byte* const large = arena.Get(1 << 20);
  EXPECT_EQ(arena.capacity(), std::size_t{1} << 20);
  for (const std::size_t bytes : {1U, 100U, 1U << 19, 1U << 20}) {
    EXPECT_EQ(arena.Get(bytes), large) << bytes;
    EXPECT_EQ(arena.capacity(), std::size_t{1} << 20);
  }
  arena.Get((1 << 20) + 1);
  EXPECT_EQ(arena.capacity(), (std::size_t{1} << 20) + 1);
}

}  // namespace
}  // namespace attnd::schedule
