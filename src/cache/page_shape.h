// The layout of a page of keys and values: some tokens of one sequence, in all layers.
//
//   page:   layer 0 | layer 1 | ...                       each begins at a multiple of 64 bytes
//   layer:  head 0  | head 1  | ...
//   head:   keys [kPageTokens, head_dim] | values [kPageTokens, value_head_dim]
//
// A page holds all layers, so that reordering sequences handles one list of pages for all layers. The keys and values
// of a head are adjacent because they are read together.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/types/span.h"
#include "kernel/attention.h"
#include "reservation/page_bytes.h"
#include "tensor/dtype.h"

namespace attnd::cache {

using reservation::kPageTokens;
using reservation::LayerShape;

// Immutable, and therefore thread-safe.
class PageShape {
 public:
  // nullopt if reservation::PageBytes is.
  static std::optional<PageShape> Make(absl::Span<const LayerShape> layers, tensor::DType dtype);

  tensor::DType dtype() const { return dtype_; }
  std::int64_t bytes() const { return bytes_; }  // of a page: a multiple of 64
  std::int64_t layers() const { return static_cast<std::int64_t>(layers_.size()); }
  const LayerShape& layer(std::int64_t layer) const { return At(layer).shape; }

  // A layer's keys, or values, as kernels take them: [sequences, kv_heads, tokens, dim]. `lists` has each sequence's
  // list of pages.
  kernel::TensorView Keys(std::int64_t layer, const std::byte* const* const* lists) const;
  kernel::TensorView Values(std::int64_t layer, const std::byte* const* const* lists) const;

 private:
  struct Layer {
    LayerShape shape;
    std::int64_t begin;  // in elements
    std::int64_t HeadStride() const { return kPageTokens * (shape.head_dim + shape.value_head_dim); }
  };
  PageShape(std::vector<Layer> layers, tensor::DType dtype, std::int64_t bytes)
      : layers_(std::move(layers)), dtype_(dtype), bytes_(bytes) {}
  const Layer& At(std::int64_t layer) const { return layers_[static_cast<std::size_t>(layer)]; }

  std::vector<Layer> layers_;
  tensor::DType dtype_;
  std::int64_t bytes_;
};

}  // namespace attnd::cache
