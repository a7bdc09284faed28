#include "bias/picture_colour.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "absl/strings/str_format.h"

namespace attnd::bias {
namespace {

Colour FromHex(std::uint32_t rgb) {
  return {static_cast<std::uint8_t>(rgb >> 16), static_cast<std::uint8_t>(rgb >> 8), static_cast<std::uint8_t>(rgb)};
}

std::uint8_t Mix(std::uint8_t a, std::uint8_t b, double t) {
  return static_cast<std::uint8_t>(std::lround(a + (b - a) * t));
}

// Between the stops, which are close enough together to mix linearly.
Colour Along(absl::Span<const std::uint32_t> stops, double t) {
  const double place = std::clamp(t, 0.0, 1.0) * static_cast<double>(stops.size() - 1);
  const auto low = std::min(static_cast<std::size_t>(place), stops.size() - 2);
  const Colour a = FromHex(stops[low]), b = FromHex(stops[low + 1]);
  const double rest = place - static_cast<double>(low);
  return {Mix(a.red, b.red, rest), Mix(a.green, b.green, rest), Mix(a.blue, b.blue, rest)};
}

}  // namespace

std::string Hex(Colour c) { return absl::StrFormat("#%02x%02x%02x", c.red, c.green, c.blue); }

Colour InkOn(Colour c) {
  const double luma = 0.299 * c.red + 0.587 * c.green + 0.114 * c.blue;
  return luma > 140 ? Colour{0x1a, 0x1a, 0x1a} : Colour{0xff, 0xff, 0xff};
}

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
  static constexpr std::uint32_t kStops[] = {0x053061, 0x2166ac, 0x4393c3, 0x92c5de, 0xd1e5f0, 0xffffff,
                                             0xfddbc7, 0xf4a582, 0xd6604d, 0xb2182b, 0x67001f};
  return Along(kStops, (t + 1) / 2);
}

std::map<std::int32_t, BucketKey> BucketKeys(const PictureWindow& window) {
  std::map<std::int32_t, BucketKey> keys;
  for (std::size_t cell = 0; cell < window.offsets.size(); ++cell) {
    if (window.Masked(cell)) continue;
    const std::int64_t offset = window.offsets[cell];
    BucketKey& key = keys.try_emplace(window.buckets[cell], BucketKey{{}, offset, offset}).first->second;
    if (std::llabs(offset) < std::llabs(key.nearest)) key.nearest = offset;
    if (std::llabs(offset) > std::llabs(key.farthest)) key.farthest = offset;
  }
  // Each side's buckets share its scale by rank. Bucket numbers grow with the distance on both sides.
  const auto is_after = [](const auto& entry) { return entry.second.farthest < 0; };
  const auto after = std::count_if(keys.begin(), keys.end(), is_after);
  const auto before = static_cast<std::ptrdiff_t>(keys.size()) - after;
  std::ptrdiff_t rank_after = 0, rank_before = 0;
  for (auto& entry : keys) {
    const auto place = [](std::ptrdiff_t rank, std::ptrdiff_t count) {
      return count < 2 ? 0.0 : static_cast<double>(rank) / static_cast<double>(count - 1);
    };
    entry.second.colour =
        is_after(entry) ? Opposite(place(rank_after++, after)) : Sequential(place(rank_before++, before));
  }
  return keys;
}

double LargestValue(const PictureWindow& window) {
  double largest = 0;
  for (std::size_t cell = 0; cell < window.values.size(); ++cell) {
    if (!window.Masked(cell)) largest = std::max(largest, std::fabs(static_cast<double>(window.values[cell])));
  }
  return largest == 0 ? 1 : largest;
}

}  // namespace attnd::bias
