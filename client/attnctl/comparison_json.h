// A comparison of biases as JSON.
#pragma once

#include <string>

#include "bias/comparison.h"

namespace attnd::ctl {

// Contains all values, each with the fewest digits that convert back to the same float. docs/comparing-biases.md
// describes the form.
std::string ComparisonJson(const bias::Comparison& comparison);

}  // namespace attnd::ctl
