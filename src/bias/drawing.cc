#include "bias/drawing.h"

#include <cmath>

#include "absl/strings/str_replace.h"
#include "errors/shown.h"

namespace attnd::bias {

std::string Escaped(absl::string_view text) {
  // XML allows no control characters, no invalid UTF-8, and neither U+FFFE nor U+FFFF.
  const std::string shown = errors::Shown(text, std::string::npos);
  return absl::StrReplaceAll(shown, {{"\uFFFE", "\\xefbfbe"},
                                     {"\uFFFF", "\\xefbfbf"},
                                     {"&", "&amp;"},
                                     {"<", "&lt;"},
                                     {">", "&gt;"},
                                     {"\"", "&quot;"}});
}

std::string Minus(absl::string_view text) { return absl::StrReplaceAll(text, {{"-", "\u2212"}}); }

double RoundStep(double range, int most) {
  const double power = std::pow(10.0, std::floor(std::log10(range)));
  for (const double factor : {0.2, 0.5, 1.0, 2.0}) {
    if (range / (power * factor) <= most) return power * factor;
  }
  return power * 5;
}

}  // namespace attnd::bias
