// Pictures of a window of the bias, for people: the book's grid of q.k cells with the bucket of each, and heat maps of
// the heads' values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "bias/bias_table.h"

namespace attnd::bias {

struct HeadValues {
  std::int64_t head;
  absl::Span<const float> values;  // [queries, keys], row-major
};

// What to draw: queries from query_start on as rows, keys from key_start on as columns. A picture depends only on
// offset = query position - key position, so it reads one cell per offset. Spans are borrowed for the call. The caller
// makes the sizes match: at least one query and one key.
struct PictureWindow {
  std::string title;  // names the model, its version and the table
  std::int64_t query_start = 0;
  std::int64_t key_start = 0;
  std::int64_t queries = 0;
  std::int64_t keys = 0;
  bool causal = false;                                // cells with a negative offset are masked
  absl::Span<const std::int32_t> buckets;             // [queries, keys], row-major; empty: the table has none
  std::map<std::int32_t, OffsetRange> bucket_ranges;  // inside the window or not; may be incomplete
  std::vector<HeadValues> heads;                      // only for the heat maps

  // The offset in row `query` and column `key`.
  std::int64_t Offset(std::int64_t query, std::int64_t key) const { return query_start + query - (key_start + key); }
  std::int64_t LeastOffset() const { return Offset(0, keys - 1); }
  std::int64_t GreatestOffset() const { return Offset(queries - 1, 0); }
  bool Masked(std::int64_t offset) const { return causal && offset < 0; }
  bool HasMasked() const { return Masked(LeastOffset()); }
  // The visible offsets are from here to GreatestOffset(); none if this is greater.
  std::int64_t FirstVisible() const { return HasMasked() ? 0 : LeastOffset(); }
  // A cell with `offset`, as an index into [queries, keys].
  std::size_t CellOf(std::int64_t offset) const {
    const std::int64_t beyond = offset - Offset(0, 0);
    return static_cast<std::size_t>(beyond < 0 ? -beyond : beyond * keys);
  }
};

// A standalone SVG 1.1 document with its own background. Cells are coloured by bucket, near offsets dark and far ones
// light, with a separate scale for keys after the query. They are labelled with the bucket's u_b if text of 7 pixels
// fits. Masked cells are hatched. A legend lists the offsets of each bucket. Needs buckets. About 10 KiB for 512 by 512
// cells, and little more for a larger window; labels take up to 200 KiB.
std::string BucketGridSvg(const PictureWindow& window);

// The same for the values of each head, on one diverging scale that is symmetric about zero, where it is grey. Several
// heads are drawn side by side. Needs values.
std::string HeatMapSvg(const PictureWindow& window);

struct TextOptions {
  bool colour = false;  // ANSI 24-bit colours
  int columns = 0;      // terminal's width; wider windows are thinned out to fit, with a note. 0: no limit
};

// The same as lines of text, one head after the other.
std::string BucketGridText(const PictureWindow& window, const TextOptions& options);
std::string HeatMapText(const PictureWindow& window, const TextOptions& options);

}  // namespace attnd::bias
