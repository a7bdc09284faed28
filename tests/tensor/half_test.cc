#include "tensor/half.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "tensor/convert.h"

namespace attnd::tensor {
namespace {

// The format's definition, in doubles.
double HalfByDefinition(std::uint32_t bits) {
  const double sign = (bits & 0x8000) != 0 ? -1 : 1;
  const int exponent = static_cast<int>((bits >> 10) & 0x1F);
  const double fraction = bits & 0x3FF;
  if (exponent == 31) return fraction == 0 ? sign * INFINITY : NAN;
  if (exponent == 0) return sign * std::ldexp(fraction, -24);
  return sign * std::ldexp(1024 + fraction, exponent - 25);
}

TEST(HalfTest, EveryHalfWidensToItsDefinitionAndBack) {
  for (std::uint32_t bits = 0; bits <= 0xFFFF; ++bits) {
    const auto half = static_cast<std::uint16_t>(bits);
    const float wide = FloatFromHalf(half);
    const double expected = HalfByDefinition(bits);
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(wide)) << bits;
      ASSERT_TRUE(std::isnan(FloatFromHalf(HalfFromFloat(wide)))) << bits;
      ASSERT_EQ(HalfFromFloat(wide) & 0x8000, half & 0x8000) << bits;
      continue;
    }
    ASSERT_EQ(static_cast<double>(wide), expected) << bits;
    ASSERT_EQ(std::signbit(wide), (bits & 0x8000) != 0) << bits;
    ASSERT_EQ(HalfFromFloat(wide), half) << bits;
  }
}

TEST(HalfTest, EveryGapRoundsToNearestEven) {
  for (std::uint16_t low = 0; low < 0x7BFF; ++low) {
    const auto high = static_cast<std::uint16_t>(low + 1);
    const float middle = (FloatFromHalf(low) + FloatFromHalf(high)) / 2;
    for (const int sign : {0, 0x8000}) {
      const float at = sign == 0 ? middle : -middle;
      const float inner = std::nextafter(at, 0.0F);
      const float outer = std::nextafter(at, sign == 0 ? INFINITY : -INFINITY);
      ASSERT_EQ(HalfFromFloat(at), sign | (low % 2 == 0 ? low : high)) << low;
      ASSERT_EQ(HalfFromFloat(inner), sign | low) << low;
      ASSERT_EQ(HalfFromFloat(outer), sign | high) << low;
    }
  }
}

TEST(HalfTest, OverflowsAtTheMiddleOfTheLastGap) {
  EXPECT_EQ(HalfFromFloat(65519.996F), 0x7BFF);
  EXPECT_EQ(HalfFromFloat(65520.0F), 0x7C00);
  EXPECT_EQ(HalfFromFloat(-65520.0F), 0xFC00);
  EXPECT_EQ(HalfFromFloat(std::numeric_limits<float>::max()), 0x7C00);
  EXPECT_EQ(HalfFromFloat(INFINITY), 0x7C00);
  EXPECT_EQ(HalfFromFloat(std::numeric_limits<float>::denorm_min()), 0);
  EXPECT_EQ(HalfFromFloat(-0.0F), 0x8000);
}

TEST(BFloat16Test, EveryGapRoundsToNearestEven) {
  for (std::uint32_t low = 0; low < 0x7F80; ++low) {
    const auto high = static_cast<std::uint16_t>(low + 1);
    const std::uint32_t middle = (low << 16) | 0x8000;
    for (const std::uint32_t sign : {0U, 0x8000U}) {
      const std::uint32_t sign_bit = sign << 16;
      ASSERT_EQ(BFloat16FromFloat(FloatFromBFloat16(static_cast<std::uint16_t>(sign | low))), sign | low);
      ASSERT_EQ(BFloat16FromFloat(std::bit_cast<float>(sign_bit | middle)), sign | (low % 2 == 0 ? low : high));
      ASSERT_EQ(BFloat16FromFloat(std::bit_cast<float>(sign_bit | (middle - 1))), sign | low);
      ASSERT_EQ(BFloat16FromFloat(std::bit_cast<float>(sign_bit | (middle + 1))), sign | high);
    }
  }
}

TEST(BFloat16Test, KeepsInfinityAndNan) {
  EXPECT_EQ(BFloat16FromFloat(INFINITY), 0x7F80);
  EXPECT_EQ(BFloat16FromFloat(-INFINITY), 0xFF80);
  // A NaN whose upper half alone would read as infinity.
  const std::uint16_t nan = BFloat16FromFloat(std::bit_cast<float>(0xFF800001U));
  EXPECT_TRUE(std::isnan(FloatFromBFloat16(nan)));
  EXPECT_EQ(nan & 0x8000, 0x8000);
}

TEST(ConvertTest, WholeTensorsAtAnyAlignment) {
  const std::vector<float> floats = {0.0F, -1.5F, 2.0F, 0.25F, -65504.0F};  // exact in F16; the last not in BF16
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    std::vector<std::byte> buffer(floats.size() * SizeOf(dtype) + 1);
    const auto unaligned = absl::MakeSpan(buffer).subspan(1);
    ConvertFromFloat(dtype, floats, unaligned);
    std::vector<float> back(floats.size());
    ConvertToFloat(dtype, unaligned, absl::MakeSpan(back));
    std::vector<float> expected = floats;
    if (dtype == DType::kBF16) expected.back() = -65536.0F;
    EXPECT_EQ(back, expected) << NameOf(dtype);
  }
}

}  // namespace
}  // namespace attnd::tensor
