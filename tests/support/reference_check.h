// FP32 tensors as bytes, and results held against kernel::Reference.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "kernel/attention.h"

namespace attnd::test {

// `count` pseudo-random FP32 values of about unit size, as bytes.
std::string RandomFloats(std::int64_t count, std::mt19937& random);

std::vector<float> FloatsOf(std::string_view bytes);

// Expects FP32 `output` and `log_sum_exp` (empty: not asked for) to be what kernel::Reference computes of `attention`,
// up to the rounding of FP32 arithmetic. `q`, `k` and `v` are the tensors' FP32 values: the tolerance follows from
// their sizes. The caller has checked the size of `log_sum_exp`.
void ExpectIsReference(const kernel::Attention& attention, std::string_view q, std::string_view k, std::string_view v,
                       std::string_view output, std::string_view log_sum_exp);

}  // namespace attnd::test
