// A window of the bias drawn for people: the book's grid of q.k cells with each cell's bucket, and heat maps of heads'
// values.
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

// What to draw: queries query_start .. and keys key_start .. as rows and columns. All that is drawn depends on
// offset = query position - key position alone, so a picture reads one cell of each offset. Spans are borrowed for the
// call. Sizes are the caller's to match: at least one query and one key.
struct PictureWindow {
  std::string title;  // names the model, its version and the table
  std::int64_t query_start = 0;
  std::int64_t key_start = 0;
  std::int64_t queries = 0;
  std::int64_t keys = 0;
  bool causal = false;                                // cells with a negative offset are masked
  absl::Span<const std::int32_t> buckets;             // [queries, keys], row-major; empty: the table has none
  std::map<std::int32_t, OffsetRange> bucket_ranges;  // wherever the offsets occur; may lack some
  std::vector<HeadValues> heads;                      // needed by the heat maps only

  // Of row `query` and column `key`.
  std::int64_t Offset(std::int64_t query, std::int64_t key) const { return query_start + query - (key_start + key); }
  std::int64_t LeastOffset() const { return Offset(0, keys - 1); }
  std::int64_t GreatestOffset() const { return Offset(queries - 1, 0); }
  bool Masked(std::int64_t offset) const { return causal && offset < 0; }
  bool HasMasked() const { return Masked(LeastOffset()); }
  // The visible offsets are this one to GreatestOffset(); none if it is greater.
  std::int64_t FirstVisible() const { return HasMasked() ? 0 : LeastOffset(); }
  // A cell of `offset`, as an index into what is [queries, keys].
  std::size_t CellOf(std::int64_t offset) const {
    const std::int64_t beyond = offset - Offset(0, 0);
    return static_cast<std::size_t>(beyond < 0 ? -beyond : beyond * keys);
  }
};

// A standalone SVG 1.1 document on a background of its own. Cells are coloured and, as long as text of 7 pixels fits,
// labelled by their bucket's u_b: near offsets dark and far ones light, keys after the query on a scale of their own.
// Masked cells are hatched. A legend says which offsets each bucket holds. Needs buckets. Some ten KiB for 512 by 512
// cells, and little more for a larger window; labels take up to 200.
std::string BucketGridSvg(const PictureWindow& window);

// The same with the values of each head, on one diverging scale that is symmetric about zero, and grey there. Several
// heads are drawn side by side. Needs values.
std::string HeatMapSvg(const PictureWindow& window);

struct TextOptions {
  bool colour = false;  // ANSI 24-bit colours
  int columns = 0;      // width of the terminal: wider windows are thinned out to fit, and say so. 0: no limit
};

// The same as lines of text. Several heads follow one another.
std::string BucketGridText(const PictureWindow& window, const TextOptions& options);
std::string HeatMapText(const PictureWindow& window, const TextOptions& options);

}  // namespace attnd::bias
