#include "contract/byte_size.h"

#include <cstdint>
#include <limits>
#include <optional>

#include "gtest/gtest.h"

namespace attnd::contract {
namespace {

constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();

TEST(ByteSize, ReadsPlainNumbersAndBinaryUnits) {
  const struct {
    const char* text;
    std::int64_t bytes;
  } kCases[] = {{"0", 0}, {"1", 1}, {"3KiB", 3 << 10}, {"256MiB", 256 << 20}, {"2TiB", std::int64_t{2} << 40}};
  for (const auto& c : kCases) {
    EXPECT_EQ(ParseByteSize(c.text), c.bytes) << c.text;
    EXPECT_EQ(ByteSizeText(c.bytes), c.text);
  }
  EXPECT_EQ(ParseByteSize("9223372036854775807"), kMost);
  EXPECT_EQ(ByteSizeText(1025), "1025");
}

// The largest count of each unit, and one more.
TEST(ByteSize, CountsThatDoNotFitAreRefused) {
  for (const auto& [suffix, shift] : kByteUnits) {
    const std::int64_t most = kMost >> shift;
    EXPECT_EQ(ParseByteSize(absl::StrCat(most, suffix)), most << shift) << suffix;
    EXPECT_EQ(ParseByteSize(absl::StrCat(most + 1, suffix)), std::nullopt) << suffix;
    EXPECT_EQ(ByteSizeText(most << shift), absl::StrCat(most, suffix));
  }
}

TEST(ByteSize, RefusesTheRest) {
  for (const char* text : {"", "MiB", "-1", "1.5GiB", "1GB", "1gib", "9223372036854775808", "8388608TiB"}) {
    EXPECT_EQ(ParseByteSize(text), std::nullopt) << text;
  }
}

}  // namespace
}  // namespace attnd::contract
