// What a session takes from the server's budget when it opens: all that it may ever need, so that no step waits for
// memory. docs/sessions.md has the formula in words.
#pragma once

#include <cstdint>
#include <optional>

#include "absl/types/span.h"
#include "reservation/page_bytes.h"
#include "tensor/dtype.h"

namespace attnd::reservation {

// The most rows of a session, and the most layers: larger models than there are.
inline constexpr std::int64_t kMostRows = 1 << 16;
inline constexpr std::int64_t kMostLayers = 1024;

// What is counted for each row, and for any session: the stream, gRPC's state of it, and the small fields of messages.
inline constexpr std::int64_t kRowBytes = 64;
inline constexpr std::int64_t kFixedBytes = 32 << 10;
// In a list of pages: the page, as it was before the step, and who uses it.
inline constexpr std::int64_t kListBytesOfPage = 64;
// Of a sequence in a layer: how many tokens it has, now and before the step.
inline constexpr std::int64_t kLengthBytes = 16;

// Of what a session keeps for its layers of one kind: of the rows for self layers, of the sources for cross layers.
struct KeptBytes {
  std::int64_t sequences;
  std::int64_t most_tokens;
  std::int64_t page_bytes;
  std::int64_t pages;  // of all sequences
  std::int64_t pool;   // the pages' memory
  std::int64_t lists;  // which pages and how many tokens each sequence has
};

// nullopt if there is no layer, or if it is more than any machine has. All >= 1.
std::optional<KeptBytes> BytesOfKept(absl::Span<const LayerShape> layers, tensor::DType dtype, std::int64_t sequences,
                                     std::int64_t most_tokens);

// The parts of what a session reserves.
struct SessionBytes {
  // `rows` is also self->sequences where there are self layers; `cross` has the sources.
  SessionBytes(std::int64_t rows, const std::optional<KeptBytes>& self, const std::optional<KeptBytes>& cross);

  std::int64_t total() const;

  std::optional<KeptBytes> self;
  std::optional<KeptBytes> cross;
  std::int64_t key_masks;  // which tokens of the sources are true: now, before the step, and for each row
  std::int64_t rows;
  std::int64_t fixed;
};

}  // namespace attnd::reservation
