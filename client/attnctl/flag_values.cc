#include "client/attnctl/flag_values.h"

#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "contract/byte_size.h"

namespace attnd::ctl {
namespace {

template <typename T>
std::optional<T> Within(const T& value, const Range<T>& range) {
  return value >= range.least && value <= range.most ? std::optional<T>(value) : std::nullopt;
}

template <typename T>
std::optional<T> WholeNumber(const std::string& text, const Range<T>& range) {
  T value = 0;
  return absl::SimpleAtoi(text, &value) ? Within(value, range) : std::nullopt;
}

template <typename T>
std::string ExpectedNumber(const char* what, const Range<T>& range) {
  const bool low = range.least > Range<T>().least, high = range.most < Range<T>().most;
  if (low && high) return absl::StrCat(what, " from ", range.least, " to ", range.most);
  if (low || std::is_unsigned_v<T>) return absl::StrCat(what, " of at least ", range.least);
  return high ? absl::StrCat(what, " of at most ", range.most) : what;
}

}  // namespace

std::optional<std::int64_t> Parsed(const std::string& text, const Range<std::int64_t>& range) {
  return WholeNumber(text, range);
}
std::optional<std::uint64_t> Parsed(const std::string& text, const Range<std::uint64_t>& range) {
  return WholeNumber(text, range);
}
std::optional<float> Parsed(const std::string& text, const Range<float>& range) {
  float value = 0;
  return absl::SimpleAtof(text, &value) && std::isfinite(value) ? Within(value, range) : std::nullopt;
}
std::optional<double> Parsed(const std::string& text, const Range<double>& range) {
  double value = 0;
  return absl::SimpleAtod(text, &value) && std::isfinite(value) ? Within(value, range) : std::nullopt;
}
std::optional<absl::Duration> Parsed(const std::string& text, const Range<absl::Duration>& range) {
  absl::Duration value;
  return absl::ParseDuration(text, &value) ? Within(value, range) : std::nullopt;
}
std::optional<ByteCount> Parsed(const std::string& text, const Range<ByteCount>& /*range*/) {
  const std::optional<std::int64_t> bytes = contract::ParseByteSize(text);
  return bytes.value_or(0) < 1 ? std::nullopt : std::optional(ByteCount{*bytes});
}
std::optional<std::string> Parsed(const std::string& text, const Range<std::string>& /*range*/) {
  return text.empty() ? std::nullopt : std::optional<std::string>(text);
}
std::optional<bool> Parsed(const std::string& text, const Range<bool>& /*range*/) {
  bool value = false;
  return absl::SimpleAtob(text, &value) ? std::optional<bool>(value) : std::nullopt;
}

std::string Expected(const Range<std::int64_t>& range) { return ExpectedNumber("a whole number", range); }
std::string Expected(const Range<std::uint64_t>& range) { return ExpectedNumber("a whole number", range); }
std::string Expected(const Range<float>& range) { return ExpectedNumber("a finite number", range); }
std::string Expected(const Range<double>& range) { return ExpectedNumber("a finite number", range); }
std::string Expected(const Range<absl::Duration>& range) {
  return absl::StrCat("a duration with its unit (as 500ms, 10s or 1h30m) from ", absl::FormatDuration(range.least),
                      " to ", absl::FormatDuration(range.most));
}
std::string Expected(const Range<ByteCount>& /*range*/) { return contract::kByteSizes; }
std::string Expected(const Range<std::string>& /*range*/) { return "a value"; }
std::string Expected(const Range<bool>& /*range*/) { return "true or false"; }

std::string Meant(const std::string& text, const Range<absl::Duration>& range) {
  const std::string with_unit = absl::StrCat(absl::StripAsciiWhitespace(text), "s");
  double number = 0;
  if (!absl::SimpleAtod(text, &number) || !Parsed(with_unit, range).has_value()) return "";
  return absl::StrCat("did you mean ", with_unit, "?");
}

// All units are read as binary units, in any case and spelling.
std::string Meant(const std::string& text, const Range<ByteCount>& range) {
  std::string number, unit;
  for (const char c : text) {
    if (absl::ascii_isdigit(static_cast<unsigned char>(c))) {
      number += c;
    } else if (!absl::ascii_isspace(static_cast<unsigned char>(c))) {
      unit += absl::ascii_toupper(static_cast<unsigned char>(c));
    }
  }
  for (const auto& [suffix, shift] : contract::kByteUnits) {
    const std::string letter(1, suffix[0]);
    if (unit != letter && unit != letter + "B" && unit != letter + "IB") continue;
    const std::string meant = number + suffix;
    if (Parsed(meant, range).has_value()) return absl::StrCat("did you mean ", meant, "?");
  }
  return "";
}

}  // namespace attnd::ctl
