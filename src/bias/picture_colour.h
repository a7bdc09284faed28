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

inline constexpr Colour kBlack{0, 0, 0}, kWhite{255, 255, 255};

// The contrast ratio of WCAG 2.2, 1 to 21.
double Contrast(Colour a, Colour b);

// Black or white, whichever has more contrast to `background`: 4.5 or more to any colour.
Colour InkOn(Colour background);

// t in [0, 1]. Sequential: viridis (van der Walt and Smith 2015), dark to light. Opposite: ColorBrewer's YlOrRd from
// dark to light, for keys after the query.
Colour Sequential(double t);
Colour Opposite(double t);

// t in [-1, 1], blue below and red above: Moreland's cool-warm scale (2009). Grey at 0, so that zero is neither the
// white of the background nor the hatching of masked cells.
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
