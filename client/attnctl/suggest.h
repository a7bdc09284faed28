// Finds what a mistyped word probably means.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace attnd::ctl {

// The smallest number of letters to insert, delete, replace or swap with their neighbour to turn `a` into `b`, where no
// letter is edited twice ("optimal string alignment"). Counts bytes, not characters.
std::size_t Distance(absl::string_view a, absl::string_view b);

// The candidate nearest to `word`, the first of several; "" if none is near. Near means: one letter differs in a word
// of up to four, two in up to eight, three in a longer one. '-' and '_' are equal, and so are capitals and small
// letters. A candidate that starts with `word`, if `word` has at least two letters, is near too.
std::string Nearest(absl::string_view word, const std::vector<std::string>& candidates);

}  // namespace attnd::ctl
