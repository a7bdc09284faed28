// Sizes of the pages that keep keys and values (cache/page_shape.h): some tokens of one sequence, in all layers.
#pragma once

#include <cstdint>
#include <optional>

#include "absl/types/span.h"
#include "tensor/dtype.h"

namespace attnd::reservation {

inline constexpr std::int64_t kPageTokens = 64;

// What is kept of a token in one layer. All >= 1.
struct LayerShape {
  std::int64_t kv_heads;
  std::int64_t head_dim;
  std::int64_t value_head_dim;
};

// Bytes of a layer in a page: a multiple of 64. nullopt if a size is below 1, or there would be more than 2^40.
std::optional<std::int64_t> LayerBytes(const LayerShape& layer, tensor::DType dtype);

// Bytes of a page of these layers. nullopt if there is no layer, one has no LayerBytes, or there would be more than
// 2^40.
std::optional<std::int64_t> PageBytes(absl::Span<const LayerShape> layers, tensor::DType dtype);

// Pages that `sequences` of at most `most_tokens` tokens each may need: those that they have, and for each one more,
// for what it has and what it had before a change. nullopt if they are too many to count. All >= 1.
std::optional<std::int64_t> MostPages(std::int64_t sequences, std::int64_t most_tokens);

// The memory of a pool of pages (cache/page_pool.h): the system's pages that they fill or touch. nullopt if that is
// more than 2^62 bytes. `page_bytes` >= 1, `pages` >= 0.
std::optional<std::int64_t> PoolBytes(std::int64_t page_bytes, std::int64_t pages);

}  // namespace attnd::reservation
