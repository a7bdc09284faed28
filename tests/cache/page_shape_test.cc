#include "cache/page_shape.h"

#include <cstdint>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace attnd::cache {
namespace {

using tensor::DType;

// Every element of every row has a place of its own within the page.
TEST(PageShape, PlacesDoNotOverlap) {
  const std::vector<LayerShape> layers = {{3, 20, 13}, {1, 1, 1}, {2, 64, 64}};
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    const std::optional<PageShape> shape = PageShape::Make(layers, dtype);
    ASSERT_TRUE(shape.has_value());
    EXPECT_EQ(shape->bytes() % 64, 0);
    const auto size = static_cast<std::int64_t>(tensor::SizeOf(dtype));
    std::set<std::int64_t> places;
    std::size_t elements = 0;
    for (std::int64_t layer = 0; layer < shape->layers(); ++layer) {
      const LayerShape& at = shape->layer(layer);
      const std::vector<std::pair<kernel::TensorView, std::int64_t>> views = {
          {shape->Keys(layer, nullptr), at.head_dim}, {shape->Values(layer, nullptr), at.value_head_dim}};
      for (const auto& [view, dim] : views) {
        EXPECT_EQ(view.dtype, dtype);
        EXPECT_EQ(view.page_rows, kPageTokens);
        for (std::int64_t head = 0; head < at.kv_heads; ++head) {
          for (std::int64_t row = 0; row < kPageTokens; ++row) {
            for (std::int64_t d = 0; d < dim; ++d, ++elements) {
              places.insert(view.page_begin + head * view.head_stride + row * view.row_stride + d);
            }
          }
        }
      }
      EXPECT_EQ(shape->Keys(layer, nullptr).page_begin * size % 64, 0);
    }
    EXPECT_EQ(places.size(), elements);
    EXPECT_GE(*places.begin(), 0);
    EXPECT_LT(*places.rbegin() * size, shape->bytes());
  }
}

TEST(PageShape, RefusesWhatIsNoPage) {
  constexpr std::int64_t kHuge = std::int64_t{1} << 62;
  const std::vector<std::vector<LayerShape>> refused = {
      {},           {{0, 1, 1}},       {{1, 0, 1}},      {{1, 1, 0}},      {{-1, 1, 1}},           {{1, -1, 1}},
      {{1, 1, -1}}, {{kHuge, 64, 64}}, {{8, kHuge, 64}}, {{8, 64, kHuge}}, {{kHuge, kHuge, kHuge}}};
  for (const std::vector<LayerShape>& layers : refused) {
    EXPECT_FALSE(PageShape::Make(layers, DType::kF32).has_value());
  }
  // Each fits, all together do not.
  EXPECT_TRUE(PageShape::Make(std::vector<LayerShape>(1, {1 << 20, 1024, 1024}), DType::kF32).has_value());
  EXPECT_FALSE(PageShape::Make(std::vector<LayerShape>(3, {1 << 20, 1024, 1024}), DType::kF32).has_value());
}

}  // namespace
}  // namespace attnd::cache
