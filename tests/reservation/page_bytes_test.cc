#include "reservation/page_bytes.h"

#include <cstdint>
#include <limits>
#include <optional>
#include <vector>

#include "gtest/gtest.h"
#include "memory/huge_pages.h"

namespace attnd::reservation {
namespace {

using tensor::DType;

constexpr std::int64_t kHuge = memory::kHugePageBytes;
constexpr std::int64_t kMany = std::int64_t{1} << 40;

TEST(PageBytes, ALayerHasKeysAndValuesOfAllItsHeads) {
  EXPECT_EQ(LayerBytes({8, 64, 64}, DType::kF32), 64 * 8 * (64 + 64) * 4);
  EXPECT_EQ(LayerBytes({8, 64, 32}, DType::kBF16), 64 * 8 * (64 + 32) * 2);
  EXPECT_EQ(LayerBytes({1, 1, 1}, DType::kF16), 256);
  EXPECT_EQ(LayerBytes({0, 64, 64}, DType::kF32), std::nullopt);
  EXPECT_EQ(LayerBytes({8, -1, 64}, DType::kF32), std::nullopt);
  EXPECT_EQ(LayerBytes({8, 64, 0}, DType::kF32), std::nullopt);
  EXPECT_EQ(LayerBytes({kMany, 64, 64}, DType::kF32), std::nullopt);
  EXPECT_EQ(LayerBytes({1, std::numeric_limits<std::int64_t>::max(), 1}, DType::kF32), std::nullopt);
}

TEST(PageBytes, APageHasAllLayers) {
  const std::vector<LayerShape> layers = {{8, 64, 64}, {2, 16, 48}, {1, 1, 1}};
  std::int64_t sum = 0;
  for (const LayerShape& layer : layers) sum += *LayerBytes(layer, DType::kF16);
  EXPECT_EQ(PageBytes(layers, DType::kF16), sum);
  EXPECT_EQ(PageBytes({}, DType::kF16), std::nullopt);
  // Each of these fits, three together do not.
  const std::vector<LayerShape> large(3, {1 << 20, 1024, 1024});
  EXPECT_TRUE(PageBytes({large.data(), 1}, DType::kF32).has_value());
  EXPECT_EQ(PageBytes(large, DType::kF32), std::nullopt);
}

// 2^40 bytes, and a layer of the smallest size more.
TEST(PageBytes, LimitsAreExact) {
  // 64 tokens of 2^24 heads of 2^8 elements of 4 bytes.
  const LayerShape most{1 << 24, 128, 128}, half{1 << 23, 128, 128}, least{1, 1, 1};
  EXPECT_EQ(LayerBytes(most, DType::kF32), kMany);
  EXPECT_EQ(LayerBytes({(1 << 24) + 1, 128, 128}, DType::kF32), std::nullopt);
  EXPECT_EQ(LayerBytes({1 << 24, 128, 129}, DType::kF32), std::nullopt);
  EXPECT_EQ(PageBytes({{most}}, DType::kF32), kMany);
  EXPECT_EQ(PageBytes({{half, half}}, DType::kF32), kMany);
  EXPECT_EQ(PageBytes({{half, half, least}}, DType::kF32), std::nullopt);
  EXPECT_EQ(PageBytes({{least, most}}, DType::kF32), std::nullopt);
  EXPECT_EQ(PoolBytes(kMany, std::int64_t{1} << 22), std::int64_t{1} << 62);
  EXPECT_EQ(PoolBytes(kMany, (std::int64_t{1} << 22) + 1), std::nullopt);
  for (const LayerShape& none : {LayerShape{0, 1, 1}, {1, 0, 1}, {1, 1, 0}, {-1, 1, 1}, {1, -1, 1}, {1, 1, -1}}) {
    EXPECT_EQ(LayerBytes(none, DType::kF32), std::nullopt);
    EXPECT_EQ(PageBytes({{least, none}}, DType::kF32), std::nullopt);
  }
}

TEST(PageBytes, EachSequenceMayNeedAPageMore) {
  EXPECT_EQ(MostPages(3, 63), 6);
  EXPECT_EQ(MostPages(3, 64), 9);
  EXPECT_EQ(MostPages(kMany, kMany), std::nullopt);
}

TEST(PageBytes, APoolTakesWholePagesOfTheSystem) {
  EXPECT_EQ(PoolBytes(64, 0), 0);
  EXPECT_EQ(PoolBytes(64, 1), 64 << 10);
  EXPECT_EQ(PoolBytes(4096, 17), 2 * (64 << 10));
  EXPECT_EQ(PoolBytes((64 << 10) + 1, 1), 2 * (64 << 10));
  EXPECT_EQ(PoolBytes(kHuge - 1, 1), kHuge);
  EXPECT_EQ(PoolBytes(kHuge - (64 << 10), 1), kHuge - (64 << 10));
  EXPECT_EQ(PoolBytes(kHuge, 1), kHuge);
  EXPECT_EQ(PoolBytes(kHuge + 64, 1), 2 * kHuge);
  EXPECT_EQ(PoolBytes(kMany, kMany), std::nullopt);
  EXPECT_EQ(PoolBytes(3, std::numeric_limits<std::int64_t>::max() / 3), std::nullopt);
}

}  // namespace
}  // namespace attnd::reservation
