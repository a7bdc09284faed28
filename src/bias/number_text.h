// Numbers as text that comes out the same in C++ and in Python.
#pragma once

#include <string>

namespace attnd::bias {

// The fewest digits that give the same float again, as a JSON number: 0.25, -3, 1.5e-07. Exponents are used below 1e-4
// and from 1e16 on. `value` is finite; -0 is 0.
std::string ShortestText(float value);

// `value` in `digits` significant digits, as printf's %g: for people. -0 is 0.
std::string RoundedText(double value, int digits);

}  // namespace attnd::bias
