// Random parameters that are the same in this library, in the Python client, and on any machine.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace attnd::bias {

// `count` values of SplitMix64 (Steele, Lea and Flood 2014) from `seed`: the upper 24 bits of each output, divided by
// 2^23, minus 1. They are uniform in [-1, 1), multiples of 2^-23, and exact in float.
std::vector<float> RandomValues(std::size_t count, std::uint64_t seed);

}  // namespace attnd::bias
