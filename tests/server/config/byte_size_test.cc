#include "server/config/byte_size.h"

#include <limits>
#include <string>

#include "gtest/gtest.h"

namespace attnd::server {
namespace {

TEST(ByteSizeTest, ReadsPlainNumbersAndBinaryUnits) {
  const struct {
    const char* text;
    std::int64_t bytes;
  } kCases[] = {{"0", 0},
                {"1", 1},
                {"1048576", 1 << 20},
                {"3KiB", 3 << 10},
                {"256MiB", 256 << 20},
                {"1GiB", 1 << 30},
                {"2TiB", std::int64_t{2} << 40},
                {"9223372036854775807", std::numeric_limits<std::int64_t>::max()}};
  for (const auto& c : kCases) {
    ByteSize size{};
    std::string error;
    EXPECT_TRUE(AbslParseFlag(c.text, &size, &error)) << c.text << ": " << error;
    EXPECT_EQ(size.bytes, c.bytes) << c.text;
    ByteSize again{};
    EXPECT_TRUE(AbslParseFlag(AbslUnparseFlag(size), &again, &error));
    EXPECT_EQ(again.bytes, c.bytes);
  }
  EXPECT_EQ(AbslUnparseFlag(ByteSize{256 << 20}), "256MiB");
  EXPECT_EQ(AbslUnparseFlag(ByteSize{1025}), "1025");
}

TEST(ByteSizeTest, RefusesTheRest) {
  for (const char* text : {"", "MiB", "-1", "1.5GiB", "1GB", "1 GiB KiB", "x", "9223372036854775808", "8388608TiB"}) {
    ByteSize size{};
    std::string error;
    EXPECT_FALSE(AbslParseFlag(text, &size, &error)) << text;
    EXPECT_NE(error, "");
  }
}

}  // namespace
}  // namespace attnd::server
