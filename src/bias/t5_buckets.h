// T5's bucketing of offsets (Raffel et al. 2020), bit for bit as Hugging Face computes it in
// T5Attention._relative_position_bucket (transformers, models/t5/modeling_t5.py) with PyTorch on a CPU.
//
// Buckets up to max_exact = buckets / 2 hold one distance each; the others grow logarithmically and the last begins
// before max_distance. Hugging Face evaluates that logarithm in float32, and where it meets an integer the rounding
// decides. Here it is evaluated once per bucket, in the same order of operations, to find where each bucket begins.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"

namespace attnd::bias {

// One side's buckets: all of a causal table's, half (rounded down) of a bidirectional one's.
constexpr std::int64_t BucketsPerSide(std::int64_t num_buckets, bool bidirectional) {
  return bidirectional ? num_buckets / 2 : num_buckets;
}

// Errors: INVALID_ARGUMENT if the formula has no value: fewer than 2 buckets a side, or a max_distance that does not
// exceed the distances that have a bucket each, or exceeds 2^48.
absl::Status CheckT5(std::int64_t num_buckets, std::int64_t max_distance, bool bidirectional);

// The smallest distance that falls into each bucket of one side, ascending, from 0. A bucket that no distance falls
// into begins where the next one does. For arguments that CheckT5 accepts.
std::vector<std::int64_t> FirstDistances(std::int64_t buckets_per_side, std::int64_t max_distance);

// The bucket that `distance` >= 0 falls into.
std::int64_t BucketOfDistance(const std::vector<std::int64_t>& first_distances, std::int64_t distance);

}  // namespace attnd::bias
