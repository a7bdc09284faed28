// ALiBi's slopes, as Press, Smith and Lewis (2022) fix them by the number of heads.
#pragma once

#include <cstdint>
#include <vector>

namespace attnd::bias {

// [heads]. For a power of two n: 2^(-8 i / n) for i from 1 to n. For other counts: those of the largest power of two
// below it, then every second slope, from the first on, of twice that power: the rule of the paper's code, and of
// BLOOM's and MPT's in Hugging Face. Each is rounded to float once. heads >= 1.
std::vector<float> PaperSlopes(std::int64_t heads);

}  // namespace attnd::bias
