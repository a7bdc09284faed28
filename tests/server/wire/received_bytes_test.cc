#include "server/wire/received_bytes.h"

#include <cstdint>
#include <utility>

#include "gtest/gtest.h"

namespace attnd::server {
namespace {

TEST(ReceivedBytesTest, CountsWhatLives) {
  const std::int64_t before = ReceivedBytes::Total();
  {
    ReceivedBytes one(5);
    ReceivedBytes two(7);
    EXPECT_EQ(ReceivedBytes::Total() - before, 12);
    ReceivedBytes moved(std::move(one));
    EXPECT_EQ(ReceivedBytes::Total() - before, 12);
    two = std::move(moved);
    moved = ReceivedBytes();
    EXPECT_EQ(ReceivedBytes::Total() - before, 5);
  }
  EXPECT_EQ(ReceivedBytes::Total(), before);
}

// What is moved from counts nothing, and what is moved into counts once.
TEST(ReceivedBytesTest, AMoveCountsOnce) {
  const std::int64_t before = ReceivedBytes::Total();
  {
    ReceivedBytes one(5);
    {
      const ReceivedBytes moved(std::move(one));
      EXPECT_EQ(ReceivedBytes::Total() - before, 5);
    }
    EXPECT_EQ(ReceivedBytes::Total() - before, 0);
  }
  EXPECT_EQ(ReceivedBytes::Total() - before, 0) << "it was counted back twice";
  {
    ReceivedBytes two(7), three(11);
    two = std::move(three);
    EXPECT_LE(ReceivedBytes::Total() - before, 18);
    EXPECT_GE(ReceivedBytes::Total() - before, 11);
  }
  EXPECT_EQ(ReceivedBytes::Total() - before, 0);
}

}  // namespace
}  // namespace attnd::server
