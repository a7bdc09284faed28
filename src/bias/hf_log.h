// The natural logarithm in float32. T5's buckets depend on its last bit.
#pragma once

namespace attnd::bias {

// log(x) in double, rounded to float. The result hardly depends on the C library: for every float from 1 to 2^63 except
// four, a double result that is one ulp off rounds to the same float (all were tried).
float RoundedLog(double x);

// log(x) as PyTorch's float32 log computes it on x86, wherever the difference decides a bucket: RoundedLog, and one ulp
// up or down for those x >= 1 that scripts/gen_hf_log.py found. Complete for every max_distance up to 4096 with up to
// 513 buckets per side, up to 16384 with up to 129, and up to 2^20 for round numbers and exact powers (see the script).
// Beyond that, a distance at the edge between two buckets may be one bucket off from PyTorch's.
float HuggingFaceLog(float x);

}  // namespace attnd::bias
