// Sizes of pages (cache/page_shape.h): the keys and values of some tokens of one sequence, in all layers.
#pragma once

#include <cstdint>
#include <optional>

#include "absl/types/span.h"
#include "tensor/dtype.h"

namespace attnd::reservation {

inline constexpr std::int64_t kPageTokens = 64;

// What one layer keeps per token. All >= 1.
struct LayerShape {
  std::int64_t kv_heads;
  std::int64_t head_dim;
  std::int64_t value_head_dim;
};

// Bytes of one layer in a page, a multiple of 64. nullopt if a size is below 1 or the result would exceed 2^40.
std::optional<std::int64_t> LayerBytes(const LayerShape& layer, tensor::DType dtype);

// Bytes of a page with these layers. nullopt if there are no layers, LayerBytes of one is nullopt, or the sum exceeds
// 2^40.
std::optional<std::int64_t> PageBytes(absl::Span<const LayerShape> layers, tensor::DType dtype);

// The most pages that `sequences` of at most `most_tokens` tokens each may need: the pages of its tokens, and one more
// per sequence, because during a change a page exists both as it was and as it will be. nullopt if the count overflows.
// All >= 1.
std::optional<std::int64_t> MostPages(std::int64_t sequences, std::int64_t most_tokens);

// The memory of a pool of pages (cache/page_pool.h), rounded up to whole pages of the system. nullopt if it exceeds
// 2^62 bytes. `page_bytes` >= 1, `pages` >= 0.
std::optional<std::int64_t> PoolBytes(std::int64_t page_bytes, std::int64_t pages);

}  // namespace attnd::reservation
