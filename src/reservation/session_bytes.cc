#include "reservation/session_bytes.h"

namespace attnd::reservation {
namespace {

// More than the memory of any machine.
constexpr std::int64_t kMostBytes = std::int64_t{1} << 60;

}  // namespace

std::optional<KeptBytes> BytesOfKept(absl::Span<const LayerShape> layers, tensor::DType dtype, std::int64_t sequences,
                                     std::int64_t most_tokens) {
  const std::optional<std::int64_t> page = PageBytes(layers, dtype);
  const std::optional<std::int64_t> pages = MostPages(sequences, most_tokens);
  if (!page.has_value() || !pages.has_value() || *pages > kMostBytes / kListBytesOfPage) return std::nullopt;
  const std::optional<std::int64_t> pool = PoolBytes(*page, *pages);
  if (!pool.has_value() || *pool > kMostBytes) return std::nullopt;
  const std::int64_t lengths = static_cast<std::int64_t>(layers.size()) * sequences * kLengthBytes;
  return KeptBytes{sequences, most_tokens, *page, *pages, *pool, *pages * kListBytesOfPage + lengths};
}

SessionBytes::SessionBytes(std::int64_t rows_count, const std::optional<KeptBytes>& kept_of_rows,
                           const std::optional<KeptBytes>& kept_of_sources)
    : self(kept_of_rows), cross(kept_of_sources), key_masks(0), rows(rows_count * kRowBytes), fixed(kFixedBytes) {
  if (cross.has_value()) key_masks = (2 * cross->sequences + rows_count) * ((cross->most_tokens + 7) / 8);
}

std::int64_t SessionBytes::total() const {
  std::int64_t bytes = fixed + rows + key_masks;
  for (const std::optional<KeptBytes>* kept : {&self, &cross}) {
    if (kept->has_value()) bytes += (*kept)->pool + (*kept)->lists;
  }
  return bytes;
}

}  // namespace attnd::reservation
