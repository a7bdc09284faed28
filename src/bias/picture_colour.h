// Colours of the pictures.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "bias/picture.h"

namespace attnd::bias {

struct Colour {
  std::uint8_t red, green, blue;
  bool operator==(const Colour&) const = default;
};

std::string Hex(Colour colour);  // "#rrggbb"

// Black or white, whichever reads better on `background`.
Colour InkOn(Colour background);

// t in [0, 1]. Sequential: viridis (van der Walt and Smith 2015), dark to light. Opposite: ColorBrewer's YlOrRd from
// dark to light, for keys after the query.
Colour Sequential(double t);
Colour Opposite(double t);

// t in [-1, 1], white at 0: ColorBrewer's RdBu, blue below and red above.
Colour Diverging(double t);

// What a picture's legend says about a bucket of the window.
struct BucketKey {
  Colour colour;
  std::int64_t nearest, farthest;  // offsets of the window that it holds, by distance from the query
};

// The buckets that the window shows, by number.
std::map<std::int32_t, BucketKey> BucketKeys(const PictureWindow& window);

// The largest absolute value that the window shows; 1 if all are 0.
double LargestValue(const PictureWindow& window);

}  // namespace attnd::bias
