// What is said about a result of `attnctl attend`, as text and as JSON.
#pragma once

#include <optional>
#include <string>

#include "client/attnctl/attention_result.h"

namespace attnd::ctl {

// How far `o` is from a tensor of the input.
struct Difference {
  std::string name;    // the tensor's
  double largest = 0;  // of any element; infinite where only one of the two is a NaN
  double rms = 0;      // root of the mean square
  std::optional<double> tolerance;
  bool held() const { return !tolerance.has_value() || largest <= *tolerance; }
};

// One line, and one for the difference.
std::string AsText(const Answered& answered, const std::optional<Difference>& difference);

std::string AsJson(const Answered& answered, const std::optional<Difference>& difference);

}  // namespace attnd::ctl
