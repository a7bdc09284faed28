// What a mistyped word was meant to be.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace attnd::ctl {

// The fewest letters to insert, delete, replace or swap with their neighbour that make `b` of `a`, where no letter is
// edited twice ("optimal string alignment"). Bytes, not characters.
std::size_t Distance(absl::string_view a, absl::string_view b);

// Whichever of `candidates` is nearest to `word`, the first of several; "" if none is near: one letter in a word of up
// to four, two up to eight, and three beyond. '-' and '_' are the same, and so are capitals and small letters. A
// candidate that `word` begins, of at least two letters, is near.
std::string Nearest(absl::string_view word, const std::vector<std::string>& candidates);

}  // namespace attnd::ctl
