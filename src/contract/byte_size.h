// Text form of byte counts, for the flags of the server and of attnctl. Header-only, like the rest of this room.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

namespace attnd::contract {

// What a byte count must look like, for error messages.
inline constexpr char kByteSizes[] = "a number of bytes such as 1048576, 512KiB, 256MiB or 1GiB";

// Largest first: ByteSizeText takes the first unit that divides the size.
inline constexpr std::array<std::pair<const char*, int>, 4> kByteUnits = {
    {{"TiB", 40}, {"GiB", 30}, {"MiB", 20}, {"KiB", 10}}};

// Returns nullopt if `text` is not a byte count, is negative, or does not fit in std::int64_t.
inline std::optional<std::int64_t> ParseByteSize(absl::string_view text) {
  int shift = 0;
  for (const auto& [suffix, unit_shift] : kByteUnits) {
    if (absl::ConsumeSuffix(&text, suffix)) {
      shift = unit_shift;
      break;
    }
  }
  std::int64_t count = 0;
  if (!absl::SimpleAtoi(text, &count) || count < 0) return std::nullopt;
  if (count > std::numeric_limits<std::int64_t>::max() >> shift) return std::nullopt;
  return count << shift;
}

// The shortest exact form.
inline std::string ByteSizeText(std::int64_t bytes) {
  for (const auto& [suffix, shift] : kByteUnits) {
    if (bytes > 0 && bytes % (std::int64_t{1} << shift) == 0) return absl::StrCat(bytes >> shift, suffix);
  }
  return absl::StrCat(bytes);
}

}  // namespace attnd::contract
