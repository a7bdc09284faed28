// What colours and words stand for buckets and values in a picture.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "bias/bias_table.h"
#include "bias/picture.h"
#include "bias/picture_colour.h"

namespace attnd::bias {

// What a legend says about a bucket.
struct BucketKey {
  Colour colour;
  OffsetRange offsets;

  // Whether it is one of keys after the query.
  bool after() const { return offsets.max.has_value() && *offsets.max < 0; }
};

// The buckets that the window shows, by number. Each has the offsets that the table gives it, or those of the window
// where the window does not know them.
std::map<std::int32_t, BucketKey> BucketKeys(const PictureWindow& window);

// Whether all of them have the offsets that the table gives them.
bool KnowsRanges(const PictureWindow& window, const std::map<std::int32_t, BucketKey>& keys);

// "0", "2 to 3", "from 4 on"; nearest first.
std::string InWords(const OffsetRange& offsets);

// The colours of values, symmetric about zero, and how many digits they are written with: common to all heads of the
// window. The finite values alone decide; an infinite one has the colour of its end, NaN one of its own.
class ValueScale {
 public:
  // Colours on each side of zero: few enough that long diagonals of nearly equal values merge, and enough that the eye
  // sees no steps.
  static constexpr int kShades = 32;

  explicit ValueScale(const PictureWindow& window);

  double least() const { return least_; }  // of the visible finite values; 0 where no value is finite
  double greatest() const { return greatest_; }
  double largest() const { return largest_; }  // absolute value, and where the scale ends; 1 if all are 0

  // Zero has a colour that no other value has.
  Colour ColourOf(double value) const;
  // From -kShades to kShades, 0 for zero.
  static Colour ColourOfShade(int shade);
  // Nothing but zero itself is written "0".
  std::string Written(double value) const;

 private:
  double least_ = 0, greatest_ = 0, largest_ = 1;
  int digits_ = 0;  // behind the point
  bool scientific_ = false;
};

}  // namespace attnd::bias
