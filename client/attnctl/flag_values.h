// How values of flags are written, and which are accepted.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>

#include "absl/time/time.h"

namespace attnd::ctl {

// An inclusive range.
template <typename T>
struct Range {
  T least = std::numeric_limits<T>::lowest();
  T most = std::numeric_limits<T>::max();
};

// Waits are limited to a year, so that times do not overflow the clock.
template <>
struct Range<absl::Duration> {
  absl::Duration least = absl::ZeroDuration();
  absl::Duration most = absl::Hours(24 * 365);
};
// A number of bytes, written with its unit ("4GiB") or without.
struct ByteCount {
  std::int64_t bytes = 0;
};
template <>
struct Range<ByteCount> {};
template <>
struct Range<std::string> {};
template <>
struct Range<bool> {};

template <typename T>
Range<T> NoLessThan(T least) {
  Range<T> range;
  range.least = least;
  return range;
}

// Parses `text`; nullopt if it is not a value of this type or out of range. Numbers are decimal; floats may have an
// exponent and must be finite. Durations need units. A number of bytes must not be 0. Any non-empty text is a string.
std::optional<std::int64_t> Parsed(const std::string& text, const Range<std::int64_t>& range);
std::optional<std::uint64_t> Parsed(const std::string& text, const Range<std::uint64_t>& range);
std::optional<float> Parsed(const std::string& text, const Range<float>& range);
std::optional<double> Parsed(const std::string& text, const Range<double>& range);
std::optional<absl::Duration> Parsed(const std::string& text, const Range<absl::Duration>& range);
std::optional<ByteCount> Parsed(const std::string& text, const Range<ByteCount>& range);
std::optional<std::string> Parsed(const std::string& text, const Range<std::string>& range);
std::optional<bool> Parsed(const std::string& text, const Range<bool>& range);

// Describes what Parsed() accepts: "a whole number of at least 1".
std::string Expected(const Range<std::int64_t>& range);
std::string Expected(const Range<std::uint64_t>& range);
std::string Expected(const Range<float>& range);
std::string Expected(const Range<double>& range);
std::string Expected(const Range<absl::Duration>& range);
std::string Expected(const Range<ByteCount>& range);
std::string Expected(const Range<std::string>& range);
std::string Expected(const Range<bool>& range);

// "did you mean 10s?" for a duration without its unit, "did you mean 4GiB?" for "4 gb", else "".
template <typename T>
std::string Meant(const std::string& /*text*/, const Range<T>& /*range*/) {
  return "";
}
std::string Meant(const std::string& text, const Range<absl::Duration>& range);
std::string Meant(const std::string& text, const Range<ByteCount>& range);

}  // namespace attnd::ctl
