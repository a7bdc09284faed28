#include "cache/page_shape.h"

#include <utility>

namespace attnd::cache {
namespace {

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
  const std::optional<std::int64_t> bytes = reservation::PageBytes(layers, dtype);
  if (!bytes.has_value()) return std::nullopt;
  const auto size = static_cast<std::int64_t>(tensor::SizeOf(dtype));
  std::vector<Layer> placed;
  std::int64_t begin = 0;
  for (const LayerShape& shape : layers) {
    placed.push_back({shape, begin / size});
    begin += *reservation::LayerBytes(shape, dtype);
  }
  return PageShape(std::move(placed), dtype, *bytes);
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
