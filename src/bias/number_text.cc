#include "bias/number_text.h"

#include <charconv>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace attnd::bias {

std::string ShortestText(float value) {
  if (value == 0) return "0";
  char buffer[32];
  char* end = std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::scientific).ptr;
  const std::string text(static_cast<const char*>(buffer), static_cast<const char*>(end));  // d.ddde-05
  const std::string sign = value < 0 ? "-" : "";
  const std::size_t e = text.find('e');
  std::string digits = text.substr(sign.size(), e - sign.size());
  const auto exponent = static_cast<int>(std::strtol(text.c_str() + e + 1, nullptr, 10));
  if (digits.size() > 1) digits.erase(1, 1);  // the decimal point
  const auto count = static_cast<int>(digits.size());
  if (exponent < -4 || exponent >= 16) {
    return absl::StrCat(sign, digits.substr(0, 1), count > 1 ? "." : "", digits.substr(1), "e",
                        exponent < 0 ? "-" : "+", absl::StrFormat("%02d", std::abs(exponent)));
  }
  if (exponent < 0) return absl::StrCat(sign, "0.", std::string(static_cast<std::size_t>(-exponent - 1), '0'), digits);
  if (exponent >= count - 1) {
    return absl::StrCat(sign, digits, std::string(static_cast<std::size_t>(exponent - count + 1), '0'));
  }
  const auto whole = static_cast<std::size_t>(exponent) + 1;
  return absl::StrCat(sign, digits.substr(0, whole), ".", digits.substr(whole));
}

std::string RoundedText(double value, int digits) { return absl::StrFormat("%.*g", digits, value == 0 ? 0.0 : value); }

}  // namespace attnd::bias
