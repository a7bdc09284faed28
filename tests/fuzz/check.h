// What fuzz targets hold true of whatever a reader accepts.
#pragma once

#include <cstdlib>
#include <iostream>

namespace attnd::fuzz {

// Ends the program, which the fuzzer reports, unless `condition`.
inline void Check(bool condition, const char* what) {
  if (condition) return;
  std::cerr << "does not hold: " << what << "\n";
  std::abort();
}

}  // namespace attnd::fuzz
