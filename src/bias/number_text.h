// Numbers as text that is the same in C++ and in Python.
#pragma once

#include <string>

namespace attnd::bias {

// The fewest digits that give the same float again, as a JSON number: 0.25, -3, 1.5e-07. Uses an exponent below 1e-4
// and from 1e16 on. `value` is finite; -0 becomes 0.
std::string ShortestText(float value);

// `value` with `digits` significant digits, like printf's %g: for people. -0 becomes 0.
std::string RoundedText(double value, int digits);

}  // namespace attnd::bias
