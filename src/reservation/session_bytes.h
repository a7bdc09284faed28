// The bytes that a session reserves when it opens: all that it may ever need, so that no step waits for memory.
// docs/sessions.md explains the formula.
#pragma once

#include <cstdint>
#include <optional>

#include "absl/types/span.h"
#include "reservation/page_bytes.h"
#include "tensor/dtype.h"

namespace attnd::reservation {

// Limits on a session's rows and layers: beyond any existing model.
inline constexpr std::int64_t kMostRows = 1 << 16;
inline constexpr std::int64_t kMostLayers = 1024;

// Bytes per row, and per session: the stream, gRPC's state for it, and the small fields of messages.
inline constexpr std::int64_t kRowBytes = 64;
inline constexpr std::int64_t kFixedBytes = 32 << 10;
// Bytes per page in the page lists: the entry, its copy from before the step, and its users.
inline constexpr std::int64_t kListBytesOfPage = 64;
// Bytes per sequence and layer: the number of tokens, now and before the step.
inline constexpr std::int64_t kLengthBytes = 16;

// What a session keeps for its layers of one kind: self layers keep one sequence per row, cross layers one per source.
struct KeptBytes {
  std::int64_t sequences;
  std::int64_t most_tokens;
  std::int64_t page_bytes;
  std::int64_t pages;  // of all sequences
  std::int64_t pool;   // bytes of the pages
  std::int64_t lists;  // bytes of each sequence's page list and token counts
};

// nullopt if there are no layers, or if the result exceeds the memory of any machine. All >= 1.
std::optional<KeptBytes> BytesOfKept(absl::Span<const LayerShape> layers, tensor::DType dtype, std::int64_t sequences,
                                     std::int64_t most_tokens);

// The components of a session's reservation.
struct SessionBytes {
  // With self layers, `rows` equals self->sequences. `cross` is for the sources.
  SessionBytes(std::int64_t rows, const std::optional<KeptBytes>& self, const std::optional<KeptBytes>& cross);

  std::int64_t total() const;

  std::optional<KeptBytes> self;
  std::optional<KeptBytes> cross;
  std::int64_t key_masks;  // which tokens of the sources are unmasked: now, before the step, and for each row
  std::int64_t rows;
  std::int64_t fixed;
};

}  // namespace attnd::reservation
