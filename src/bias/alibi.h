// ALiBi's slopes, which Press, Smith and Lewis (2022) derive from the number of heads.
#pragma once

#include <cstdint>
#include <vector>

namespace attnd::bias {

// Returns [heads] slopes, heads >= 1. For a power of two n: 2^(-8 i / n) for i from 1 to n. For any other number: the
// slopes of the largest power of two below it, then every second slope, starting with the first, of twice that power.
// This is the rule of the paper's code, and of BLOOM and MPT in Hugging Face. Each slope is rounded to float once.
std::vector<float> PaperSlopes(std::int64_t heads);

}  // namespace attnd::bias
