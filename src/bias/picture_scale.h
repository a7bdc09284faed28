// The colours and texts for buckets and values in a picture.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "bias/bias_table.h"
#include "bias/picture.h"
#include "bias/picture_colour.h"

namespace attnd::bias {

// A bucket's entry in the legend.
struct BucketKey {
  Colour colour;
  OffsetRange offsets;

  // Whether the bucket is for keys after the query.
  bool after() const { return offsets.max.has_value() && *offsets.max < 0; }
};

// The buckets that the window shows, by number, each with the table's range of offsets, or with the offsets seen in the
// window if bucket_ranges lacks it.
std::map<std::int32_t, BucketKey> BucketKeys(const PictureWindow& window);

// Whether bucket_ranges has all of these buckets.
bool KnowsRanges(const PictureWindow& window, const std::map<std::int32_t, BucketKey>& keys);

// "0", "2 to 3", "from 4 on"; nearest offset first.
std::string InWords(const OffsetRange& offsets);

// The colours and number format of values, shared by all heads of the window. The colour scale is symmetric about zero.
// Only finite values determine it: an infinite value has the colour of its end, and NaN has its own.
class ValueScale {
 public:
  // Shades on each side of zero: few enough that long diagonals of nearly equal values merge, and enough that no steps
  // are visible.
  static constexpr int kShades = 32;

  explicit ValueScale(const PictureWindow& window);

  double least() const { return least_; }  // of the visible finite values; 0 if there are none
  double greatest() const { return greatest_; }
  double largest() const { return largest_; }  // largest magnitude, the end of the scale; 1 if all are 0

  // No other value has the colour of zero.
  Colour ColourOf(double value) const;
  // From -kShades to kShades, 0 for zero.
  static Colour ColourOfShade(int shade);
  // The value as text. Only zero itself is "0".
  std::string Written(double value) const;

 private:
  double least_ = 0, greatest_ = 0, largest_ = 1;
  int digits_ = 0;  // after the decimal point
  bool scientific_ = false;
};

}  // namespace attnd::bias
