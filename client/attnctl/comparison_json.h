// A comparison of biases for programs.
#pragma once

#include <string>

#include "bias/comparison.h"

namespace attnd::ctl {

// All values, each in the fewest digits that give the same float again. docs/comparing-biases.md has the form.
std::string ComparisonJson(const bias::Comparison& comparison);

}  // namespace attnd::ctl
