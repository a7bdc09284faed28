// Shared by the pictures of one bias and of comparisons.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace attnd::bias {

// Text escaped for SVG elements and attributes. Characters that XML does not allow become \xNN.
std::string Escaped(absl::string_view text);

// Replaces each "-" by the minus sign, which is as wide as a plus.
std::string Minus(absl::string_view text);

// A round step for the ticks of an axis: 1, 2 or 5 times a power of ten, at most `most` of which fit into `range`.
// `range` is above 0, `most` is 4 or 5.
double RoundStep(double range, int most);

}  // namespace attnd::bias
