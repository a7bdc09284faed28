// T5's bucketing of offsets (Raffel et al. 2020), bit for bit as Hugging Face computes it in
// T5Attention._relative_position_bucket (transformers, models/t5/modeling_t5.py) with PyTorch on a CPU.
//
// Buckets below max_exact = buckets / 2 hold one distance each. The others grow logarithmically, and the last one
// begins before max_distance. Hugging Face evaluates the logarithm in float32; where it is close to an integer,
// rounding decides. Here it is evaluated only to find where each bucket begins, in the same order of operations.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"

namespace attnd::bias {

// The buckets of one side: all of a causal table's, half (rounded down) of a bidirectional one's.
constexpr std::int64_t BucketsPerSide(std::int64_t num_buckets, bool bidirectional) {
  return bidirectional ? num_buckets / 2 : num_buckets;
}

// Errors: INVALID_ARGUMENT if the formula is undefined: fewer than 2 buckets per side, or a max_distance that is not
// above the distances with a bucket each, or is above 2^48.
absl::Status CheckT5(std::int64_t num_buckets, std::int64_t max_distance, bool bidirectional);

// The smallest distance in each bucket of one side, ascending from 0. A bucket without distances begins where the next
// one does. The arguments must pass CheckT5.
std::vector<std::int64_t> FirstDistances(std::int64_t buckets_per_side, std::int64_t max_distance);

// The bucket of `distance` >= 0.
std::int64_t BucketOfDistance(const std::vector<std::int64_t>& first_distances, std::int64_t distance);

}  // namespace attnd::bias
