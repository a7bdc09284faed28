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

}  // namespace
}  // namespace attnd::server
