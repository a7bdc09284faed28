#include "bias/number_text.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <limits>

namespace attnd::bias {
namespace {

TEST(ShortestText, ReadsAsJsonDoes) {
  for (const auto& [value, text] : {std::pair{0.25F, "0.25"},
                                    {-3.0F, "-3"},
                                    {0.1F, "0.1"},
                                    {1.5e-7F, "1.5e-07"},
                                    {-0.0F, "0"},
                                    {100.0F, "100"},
                                    {0.0001F, "0.0001"},
                                    {0.00001F, "1e-05"},
                                    {1e15F, "1000000000000000"},
                                    {1e16F, "1e+16"},
                                    {12.5F, "12.5"},
                                    {std::numeric_limits<float>::max(), "3.4028235e+38"},
                                    {std::numeric_limits<float>::denorm_min(), "1e-45"}}) {
    EXPECT_EQ(ShortestText(value), text);
  }
}

TEST(ShortestText, GivesTheSameFloatAgain) {
  std::uint32_t bits = 1;
  for (int i = 0; i < 200000; ++i) {
    bits = bits * 1664525U + 1013904223U;
    const auto value = std::bit_cast<float>(bits);
    if (!std::isfinite(value)) continue;
    ASSERT_EQ(std::strtof(ShortestText(value).c_str(), nullptr), value) << bits;
  }
}

TEST(RoundedText, IsPrintfs) {
  EXPECT_EQ(RoundedText(-0.0, 4), "0");
  EXPECT_EQ(RoundedText(0.123456, 4), "0.1235");
  EXPECT_EQ(RoundedText(1.27e-14, 3), "1.27e-14");
  EXPECT_EQ(RoundedText(std::numeric_limits<double>::infinity(), 3), "inf");
}

}  // namespace
}  // namespace attnd::bias
