// A window of the bias drawn for people: the book's grid of q.k cells with each cell's bucket, and a heat map of one
// head's values.
#pragma once

#include <cstdint>
#include <string>

#include "absl/types/span.h"

namespace attnd::bias {

// What to draw: queries query_start .. and keys key_start .. as rows and columns. All spans are [queries, keys],
// row-major, and borrowed for the call. Sizes are the caller's to match.
struct PictureWindow {
  std::string title;
  std::int64_t query_start = 0;
  std::int64_t key_start = 0;
  std::int64_t queries = 0;
  std::int64_t keys = 0;
  bool causal = false;                     // cells with a negative offset are masked, and left empty
  absl::Span<const std::int64_t> offsets;  // query position - key position
  absl::Span<const std::int32_t> buckets;  // empty: the table has none
  absl::Span<const float> values;          // of one head; needed by the heat maps only
  std::int64_t head = 0;                   // whose values these are

  std::size_t Index(std::int64_t query, std::int64_t key) const { return static_cast<std::size_t>(query * keys + key); }
  bool Masked(std::size_t cell) const { return causal && offsets[cell] < 0; }
};

// A standalone SVG 1.1 document. Cells are coloured and (up to some twenty a side) labelled by their bucket's u_b, near
// offsets dark and far ones light, with a legend. Neighbours of one colour are merged, so that a picture of 512 by 512
// stays below some hundred KiB. Needs buckets.
std::string BucketGridSvg(const PictureWindow& window);

// The same with the values of `head` on a diverging scale that is white at zero, and a colour bar. Needs values.
std::string HeatMapSvg(const PictureWindow& window);

struct TextOptions {
  bool colour = false;  // ANSI 24-bit colours
  int columns = 0;      // width of the terminal: wider windows are thinned out to fit, and say so. 0: no limit
};

// The same as lines of text.
std::string BucketGridText(const PictureWindow& window, const TextOptions& options);
std::string HeatMapText(const PictureWindow& window, const TextOptions& options);

}  // namespace attnd::bias
