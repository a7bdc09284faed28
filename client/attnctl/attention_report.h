// Reports a result of `attnctl attend`, as text and as JSON.
#pragma once

#include <optional>
#include <string>

#include "client/attnctl/attention_result.h"

namespace attnd::ctl {

// The difference between `o` and a tensor of the input.
struct Difference {
  std::string name;    // name of that tensor
  double largest = 0;  // largest absolute difference of any element; infinite if exactly one of the two is NaN
  double rms = 0;      // root of the mean square
  std::optional<double> tolerance;
  bool held() const { return !tolerance.has_value() || largest <= *tolerance; }
};

// One line for the result, and one for the difference if there is one.
std::string AsText(const Answered& answered, const std::optional<Difference>& difference);

std::string AsJson(const Answered& answered, const std::optional<Difference>& difference);

}  // namespace attnd::ctl
