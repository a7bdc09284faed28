// What pictures of a bias and comparisons of several share as they are drawn.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace attnd::bias {

// Text as SVG has it, in elements and attributes. What XML does not allow there is shown as \xNN.
std::string Escaped(absl::string_view text);

// With the sign that is as wide as a plus.
std::string Minus(absl::string_view text);

// A round number for the ticks of an axis: 1, 2 or 5 times a power of ten, of which `range` has at most `most`. `range`
// is above 0, `most` 4 or 5.
double RoundStep(double range, int most);

}  // namespace attnd::bias
