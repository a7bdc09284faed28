#include "cache/page_shape.h"

#include <utility>

#include "tensor/checked_size.h"

namespace attnd::cache {
namespace {

constexpr std::int64_t kMostPageBytes = std::int64_t{1} << 40;
constexpr std::int64_t kLine = 64;

kernel::TensorView ViewOf(tensor::DType dtype, const std::byte* const* const* lists, std::int64_t begin,
                          std::int64_t head_stride, std::int64_t row_stride) {
  kernel::TensorView view{};
  view.dtype = dtype;
  view.head_stride = head_stride;
  view.row_stride = row_stride;
  view.pages = lists;
  view.page_rows = kPageTokens;
  view.page_begin = begin;
  return view;
}

}  // namespace

std::optional<PageShape> PageShape::Make(absl::Span<const LayerShape> layers, tensor::DType dtype) {
  const auto size = static_cast<std::int64_t>(tensor::SizeOf(dtype));
  std::vector<Layer> placed;
  std::int64_t bytes = 0;
  for (const LayerShape& shape : layers) {
    if (shape.kv_heads < 1 || shape.head_dim < 1 || shape.value_head_dim < 1) return std::nullopt;
    if (shape.head_dim > kMostPageBytes || shape.value_head_dim > kMostPageBytes) return std::nullopt;
    const std::optional<std::int64_t> layer =
        tensor::CheckedProduct({shape.kv_heads, kPageTokens, shape.head_dim + shape.value_head_dim, size});
    if (!layer.has_value() || *layer > kMostPageBytes - bytes) return std::nullopt;
    placed.push_back({shape, bytes / size});
    bytes = (bytes + *layer + kLine - 1) / kLine * kLine;
  }
  if (placed.empty() || bytes > kMostPageBytes) return std::nullopt;
  return PageShape(std::move(placed), dtype, bytes);
}

kernel::TensorView PageShape::Keys(std::int64_t layer, const std::byte* const* const* lists) const {
  const Layer& at = At(layer);
  return ViewOf(dtype_, lists, at.begin, at.HeadStride(), at.shape.head_dim);
}

kernel::TensorView PageShape::Values(std::int64_t layer, const std::byte* const* const* lists) const {
  const Layer& at = At(layer);
  return ViewOf(dtype_, lists, at.begin + kPageTokens * at.shape.head_dim, at.HeadStride(), at.shape.value_head_dim);
}

}  // namespace attnd::cache
