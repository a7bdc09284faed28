#include "reservation/session_bytes.h"

#include <cstdint>
#include <optional>
#include <vector>

#include "gtest/gtest.h"

namespace attnd::reservation {
namespace {

using tensor::DType;

constexpr std::int64_t kMiB = 1 << 20;

// The example of docs/sessions.md.
TEST(SessionBytes, OfT5Small) {
  const std::vector<LayerShape> layers(6, {8, 64, 64});
  const std::optional<KeptBytes> rows = BytesOfKept(layers, DType::kBF16, 16, 256);
  const std::optional<KeptBytes> sources = BytesOfKept(layers, DType::kBF16, 4, 512);
  ASSERT_TRUE(rows.has_value() && sources.has_value());
  EXPECT_EQ(rows->page_bytes, 768 << 10);
  EXPECT_EQ(rows->pages, 16 * 6);
  EXPECT_EQ(rows->pool, 72 * kMiB);
  EXPECT_EQ(rows->lists, 96 * 64 + 6 * 16 * 16);
  EXPECT_EQ(sources->pages, 4 * 10);
  EXPECT_EQ(sources->pool, 30 * kMiB);
  const SessionBytes bytes(16, rows, sources);
  EXPECT_EQ(bytes.rows, 16 * 64);
  EXPECT_EQ(bytes.key_masks, (2 * 4 + 16) * 512 / 8);
  EXPECT_EQ(bytes.fixed, 32 << 10);
  EXPECT_EQ(bytes.total(), 102 * kMiB + rows->lists + sources->lists + bytes.rows + bytes.key_masks + bytes.fixed);
}

TEST(SessionBytes, OneKindAloneIsCountedAlone) {
  const std::vector<LayerShape> layer(1, {1, 8, 8});
  const std::optional<KeptBytes> kept = BytesOfKept(layer, DType::kF32, 2, 10);
  const SessionBytes self(2, kept, std::nullopt), cross(2, std::nullopt, kept);
  EXPECT_EQ(self.key_masks, 0);
  EXPECT_EQ(self.total(), kept->pool + kept->lists + 2 * 64 + (32 << 10));
  EXPECT_EQ(cross.key_masks, (2 * 2 + 2) * 2);
  EXPECT_EQ(cross.total(), self.total() + cross.key_masks);
}

TEST(SessionBytes, MoreThanAMachineHasIsNone) {
  const std::vector<LayerShape> layer(1, {8, 64, 64}), wide(1, {1 << 20, 1024, 1024});
  EXPECT_EQ(BytesOfKept({}, DType::kF32, 1, 1), std::nullopt);
  EXPECT_EQ(BytesOfKept(layer, DType::kF32, std::int64_t{1} << 40, std::int64_t{1} << 40), std::nullopt);
  EXPECT_EQ(BytesOfKept(wide, DType::kF32, kMostRows, INT32_MAX), std::nullopt);
  EXPECT_TRUE(BytesOfKept(layer, DType::kF32, kMostRows, 1 << 20).has_value());
  // 2^60 bytes in pages of 2^40: 2^18 sequences of four pages, and one more.
  const std::vector<LayerShape> largest(1, {1 << 24, 128, 128});
  const std::optional<KeptBytes> most = BytesOfKept(largest, DType::kF32, 1 << 18, 2 * kPageTokens);
  ASSERT_TRUE(most.has_value());
  EXPECT_EQ(most->pool, std::int64_t{1} << 60);
  EXPECT_EQ(BytesOfKept(largest, DType::kF32, (1 << 18) + 1, 2 * kPageTokens), std::nullopt);
  EXPECT_EQ(BytesOfKept(largest, DType::kF32, 1 << 18, 3 * kPageTokens), std::nullopt);
  // Lists of 2^60 bytes.
  constexpr std::int64_t kPages = (std::int64_t{1} << 60) / kListBytesOfPage;
  EXPECT_EQ(BytesOfKept({{{1, 1, 1}}}, DType::kF16, kPages / 2 + 1, 1), std::nullopt);
}

}  // namespace
}  // namespace attnd::reservation
