// The natural logarithm in float32, as T5's buckets depend on it to the last bit.
#pragma once

namespace attnd::bias {

// log(x) in double, rounded to float. So it hardly depends on the C library: for every float from 1 to 2^63 but four, a
// double result one ulp off rounds to the same float (all were tried).
float RoundedLog(double x);

// log(x) as PyTorch's float32 log gives it on x86, where that decides a bucket: RoundedLog, an ulp up or down for those
// x >= 1 that scripts/gen_hf_log.py found. Complete for every max_distance up to 4096 with up to 513 buckets a side, up
// to 16384 with up to 129, and up to 2^20 for round ones and exact powers (see the script). Beyond that, a distance
// that falls on the edge between two buckets may come out one bucket from PyTorch's.
float HuggingFaceLog(float x);

}  // namespace attnd::bias
