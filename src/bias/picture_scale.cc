#include "bias/picture_scale.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace attnd::bias {
namespace {

constexpr double kNearZero = 0.1;  // of the diverging scale: the smallest values begin here, to stand out from zero

}  // namespace

std::map<std::int32_t, BucketKey> BucketKeys(const PictureWindow& window) {
  std::map<std::int32_t, BucketKey> keys;
  for (std::int64_t offset = window.FirstVisible(); offset <= window.GreatestOffset(); ++offset) {
    OffsetRange& seen = keys[window.buckets[window.CellOf(offset)]].offsets;
    if (!seen.min.has_value()) seen.min = offset;
    seen.max = offset;
  }
  for (auto& [bucket, key] : keys) {
    const auto known = window.bucket_ranges.find(bucket);
    if (known == window.bucket_ranges.end()) continue;
    key.offsets = known->second;
    if (window.causal && key.offsets.min.value_or(-1) < 0) key.offsets.min = 0;
  }
  // The buckets of each side are spread over its scale by rank. Bucket numbers grow with the distance on both sides.
  const auto after = std::count_if(keys.begin(), keys.end(), [](const auto& entry) { return entry.second.after(); });
  const auto before = static_cast<std::ptrdiff_t>(keys.size()) - after;
  std::ptrdiff_t rank_after = 0, rank_before = 0;
  for (auto& [bucket, key] : keys) {
    const auto place = [](std::ptrdiff_t rank, std::ptrdiff_t count) {
      return count < 2 ? 0.0 : static_cast<double>(rank) / static_cast<double>(count - 1);
    };
    key.colour = key.after() ? Opposite(place(rank_after++, after)) : Sequential(place(rank_before++, before));
  }
  return keys;
}

bool KnowsRanges(const PictureWindow& window, const std::map<std::int32_t, BucketKey>& keys) {
  return std::all_of(keys.begin(), keys.end(),
                     [&](const auto& entry) { return window.bucket_ranges.count(entry.first) > 0; });
}

std::string InWords(const OffsetRange& offsets) {
  if (!offsets.min.has_value()) return absl::StrCat("from ", offsets.max.value_or(0), " down");
  if (!offsets.max.has_value()) return absl::StrCat("from ", *offsets.min, " on");
  if (*offsets.min == *offsets.max) return absl::StrCat(*offsets.min);
  return *offsets.max < 0 ? absl::StrCat(*offsets.max, " to ", *offsets.min)
                          : absl::StrCat(*offsets.min, " to ", *offsets.max);
}

ValueScale::ValueScale(const PictureWindow& window) {
  bool any = false;
  for (const HeadValues& head : window.heads) {
    for (std::int64_t offset = window.FirstVisible(); offset <= window.GreatestOffset(); ++offset) {
      const double value = static_cast<double>(head.values[window.CellOf(offset)]);
      if (!std::isfinite(value)) continue;
      least_ = any ? std::min(least_, value) : value;
      greatest_ = any ? std::max(greatest_, value) : value;
      any = true;
    }
  }
  largest_ = std::max(std::fabs(least_), std::fabs(greatest_));
  if (largest_ == 0) largest_ = 1;
  const int magnitude = static_cast<int>(std::floor(std::log10(largest_)));
  digits_ = magnitude > 2 ? 0 : magnitude == 2 ? 1 : std::max(2, 1 - magnitude);
  scientific_ = magnitude > 4 || magnitude < -4;
}

Colour ValueScale::ColourOfShade(int shade) {
  if (shade == 0) return Diverging(0);
  const double t = kNearZero + (1 - kNearZero) * std::abs(shade) / kShades;
  return Diverging(shade < 0 ? -t : t);
}

Colour ValueScale::ColourOf(double value) const {
  if (std::isnan(value)) return kNotANumber;
  if (value == 0) return ColourOfShade(0);
  const double shades = std::min<double>(std::round(std::fabs(value) / largest_ * kShades), kShades);
  const int shade = std::max(1, static_cast<int>(shades));
  return ColourOfShade(value < 0 ? -shade : shade);
}

std::string ValueScale::Written(double value) const {
  if (value == 0) return "0";
  if (std::isnan(value)) return "nan";
  return scientific_ ? absl::StrFormat("%.1e", value) : absl::StrFormat("%.*f", digits_, value);
}

}  // namespace attnd::bias
