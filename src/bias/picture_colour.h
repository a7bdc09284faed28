// Colours of the pictures.
#pragma once

#include <cstdint>
#include <string>

namespace attnd::bias {

struct Colour {
  std::uint8_t red, green, blue;
  bool operator==(const Colour&) const = default;
};

std::string Hex(Colour colour);  // "#rrggbb"

inline constexpr Colour kBlack{0, 0, 0}, kWhite{255, 255, 255};
inline constexpr Colour kNotANumber{64, 64, 64};

// The contrast ratio of WCAG 2.2, 1 to 21.
double Contrast(Colour a, Colour b);

// Black or white, whichever contrasts more with `background`: at least 4.5 for any colour.
Colour InkOn(Colour background);

// t in [0, 1]. Sequential: viridis (van der Walt and Smith 2015), dark to light. Opposite: ColorBrewer's YlOrRd from
// dark to light, for keys after the query.
Colour Sequential(double t);
Colour Opposite(double t);

// t in [-1, 1], blue below zero and red above: Moreland's cool-warm scale (2009). Grey at 0, so that zero differs from
// the white background and from the hatching of masked cells.
Colour Diverging(double t);

}  // namespace attnd::bias
