#include "bias/picture_colour.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_format.h"
#include "absl/types/span.h"

namespace attnd::bias {
namespace {

Colour FromHex(std::uint32_t rgb) {
  return {static_cast<std::uint8_t>(rgb >> 16), static_cast<std::uint8_t>(rgb >> 8), static_cast<std::uint8_t>(rgb)};
}

std::uint8_t Mix(std::uint8_t a, std::uint8_t b, double t) {
  return static_cast<std::uint8_t>(std::lround(a + (b - a) * t));
}

// Mixes linearly between neighbouring stops, which are close enough for that.
Colour Along(absl::Span<const std::uint32_t> stops, double t) {
  const double place = std::clamp(t, 0.0, 1.0) * static_cast<double>(stops.size() - 1);
  const auto low = std::min(static_cast<std::size_t>(place), stops.size() - 2);
  const Colour a = FromHex(stops[low]), b = FromHex(stops[low + 1]);
  const double rest = place - static_cast<double>(low);
  return {Mix(a.red, b.red, rest), Mix(a.green, b.green, rest), Mix(a.blue, b.blue, rest)};
}

// A channel's linear value, before it is weighted in the relative luminance (WCAG 2.2, "relative luminance").
double Linear(std::uint8_t channel) {
  const double c = channel / 255.0;
  return c <= 0.04045 ? c / 12.92 : std::pow((c + 0.055) / 1.055, 2.4);
}

double Luminance(Colour c) { return 0.2126 * Linear(c.red) + 0.7152 * Linear(c.green) + 0.0722 * Linear(c.blue); }

}  // namespace

std::string Hex(Colour c) { return absl::StrFormat("#%02x%02x%02x", c.red, c.green, c.blue); }

double Contrast(Colour a, Colour b) {
  const double la = Luminance(a), lb = Luminance(b);
  return (std::max(la, lb) + 0.05) / (std::min(la, lb) + 0.05);
}

Colour InkOn(Colour c) { return Contrast(c, kBlack) >= Contrast(c, kWhite) ? kBlack : kWhite; }

Colour Sequential(double t) {
  static constexpr std::uint32_t kStops[] = {0x440154, 0x472d7b, 0x3b528b, 0x2c728e, 0x21918c,
                                             0x28ae80, 0x5ec962, 0xaddc30, 0xfde725};
  return Along(kStops, t);
}

Colour Opposite(double t) {
  static constexpr std::uint32_t kStops[] = {0x800026, 0xbd0026, 0xe31a1c, 0xfc4e2a, 0xfd8d3c, 0xfeb24c, 0xfed976};
  return Along(kStops, t);
}

Colour Diverging(double t) {
  static constexpr std::uint32_t kStops[] = {0x3b4cc0, 0x4d68d7, 0x6282ea, 0x779af7, 0x8db0fe, 0xa3c2ff,
                                             0xb8d0f9, 0xccd9ee, 0xdddddd, 0xecd3c5, 0xf5c4ad, 0xf7b194,
                                             0xf49a7b, 0xec7f63, 0xde604d, 0xcb3e38, 0xb40426};
  return Along(kStops, (t + 1) / 2);
}

}  // namespace attnd::bias
