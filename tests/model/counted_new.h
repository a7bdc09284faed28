// Counts what this program holds by operator new. Linked into a test (counted_new.cc), it replaces the operator.
#pragma once

#include <cstdint>

namespace attnd::model {

// Bytes that are held now.
std::int64_t LiveBytes();

// The most that were held at once since ResetPeak().
std::int64_t PeakBytes();
void ResetPeak();

}  // namespace attnd::model
