#include "tensor/checked_size.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <optional>
#include <vector>

namespace attnd::tensor {
namespace {

constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();

TEST(CheckedProductTest, FitsOrIsRefused) {
  struct Case {
    std::vector<std::int64_t> dims;
    std::optional<std::int64_t> product;
  };
  const Case cases[] = {
      {{}, 1},
      {{7}, 7},
      {{2, 3, 5}, 30},
      {{kMost}, kMost},
      {{kMost, 1}, kMost},
      {{1, kMost}, kMost},
      {{kMost, 2}, std::nullopt},
      {{2, kMost}, std::nullopt},
      {{std::int64_t{1} << 31, std::int64_t{1} << 31}, std::int64_t{1} << 62},
      {{std::int64_t{1} << 31, std::int64_t{1} << 32}, std::nullopt},
      {{std::int64_t{1} << 32, std::int64_t{1} << 32}, std::nullopt},  // 2^64 is 0 to whoever does not check
      {{7, kMost / 7}, kMost / 7 * 7},
      {{7, kMost / 7 + 1}, std::nullopt},
      {{-1}, std::nullopt},
      {{-1, 0}, std::nullopt},
      {{0, -1}, std::nullopt},
      {{0}, 0},
      {{0, kMost}, 0},
      {{kMost, 0, 1}, 0},
      {{0, kMost, 2}, std::nullopt},  // the others overflow without it
  };
  for (const Case& c : cases) {
    EXPECT_EQ(CheckedProduct(c.dims), c.product) << ::testing::PrintToString(c.dims);
  }
  EXPECT_EQ(CheckedProduct({3, 4}), 12);
}

}  // namespace
}  // namespace attnd::tensor
