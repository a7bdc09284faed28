#include "client/attnctl/quantities.h"

#include "absl/strings/str_cat.h"
#include "contract/byte_size.h"

namespace attnd::ctl {

std::string BytesText(std::int64_t bytes) {
  for (const auto& [unit, shift] : contract::kByteUnits) {
    const std::int64_t one = std::int64_t{1} << shift;
    if (bytes < one) continue;
    const std::int64_t tenths = bytes % one * 10 / one;  // one is 2^40 at most
    return absl::StrCat(bytes / one, ".", tenths, " ", unit);
  }
  return absl::StrCat(bytes, " B");
}

std::string ShortDuration(absl::Duration duration) {
  const std::int64_t seconds = absl::ToInt64Seconds(duration);
  if (seconds < 60) return absl::StrCat(seconds, ".", absl::ToInt64Milliseconds(duration) % 1000 / 100, "s");
  if (seconds < 3600) return absl::StrCat(seconds / 60, "m", seconds % 60, "s");
  if (seconds < 24 * 3600) return absl::StrCat(seconds / 3600, "h", seconds / 60 % 60, "m");
  return absl::StrCat(seconds / (24 * 3600), "d", seconds / 3600 % 24, "h");
}

}  // namespace attnd::ctl
