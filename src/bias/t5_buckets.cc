#include "bias/t5_buckets.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "bias/hf_log.h"
#include "errors/field_error.h"

namespace attnd::bias {
namespace {

// Small enough that a search for a distance can overshoot it without overflow.
constexpr std::int64_t kMaxDistance = std::int64_t{1} << 48;

// Hugging Face's formula for a distance >= max_exact:
//   max_exact + (log(float32(distance) / max_exact) / log(max_distance / max_exact) * (buckets - max_exact)).to(long)
// Tensors are float32, Python's own log is double, and a Python number is converted to float32 when it meets a tensor.
// Every step is monotone in the distance, so the first distance of a bucket can be searched for.
class LogBuckets {
 public:
  LogBuckets(std::int64_t buckets, std::int64_t max_distance)
      : max_exact_(buckets / 2),
        last_(buckets - 1),
        divisor_(RoundedLog(static_cast<double>(max_distance) / static_cast<double>(max_exact_))),
        factor_(static_cast<float>(buckets - max_exact_)) {}

  std::int64_t Of(std::int64_t distance) const {
    const float ratio = static_cast<float>(distance) / static_cast<float>(max_exact_);
    const float position = HuggingFaceLog(ratio) / divisor_ * factor_;
    const float room = static_cast<float>(last_ - max_exact_);
    return position >= room ? last_ : max_exact_ + static_cast<std::int64_t>(position);
  }

  // The smallest distance >= `from` whose bucket is at least `bucket`. Doubles its steps until it has passed that
  // distance, then bisects.
  std::int64_t First(std::int64_t bucket, std::int64_t from) const {
    std::int64_t step = 1;
    while (Of(from + step - 1) < bucket) {
      from += step;
      step *= 2;
    }
    while (step > 1) {
      const std::int64_t half = step / 2;
      if (Of(from + half - 1) < bucket) from += half;
      step -= half;
    }
    return from;
  }

 private:
  const std::int64_t max_exact_;
  const std::int64_t last_;
  const float divisor_;
  const float factor_;
};

}  // namespace

absl::Status CheckT5(std::int64_t num_buckets, std::int64_t max_distance, bool bidirectional) {
  const std::int64_t least = bidirectional ? 4 : 2;
  if (num_buckets < least) {
    return errors::InvalidField("num_buckets",
                                absl::StrCat("at least ", least, bidirectional ? " (bidirectional)" : ""), num_buckets);
  }
  const std::int64_t max_exact = BucketsPerSide(num_buckets, bidirectional) / 2;
  if (max_distance <= max_exact) {
    return errors::InvalidField(
        "max_distance", absl::StrCat("more than ", max_exact, " (the distances with a bucket each)"), max_distance);
  }
  if (max_distance > kMaxDistance) {
    return errors::InvalidField("max_distance", absl::StrCat("at most ", kMaxDistance), max_distance);
  }
  return absl::OkStatus();
}

std::vector<std::int64_t> FirstDistances(std::int64_t buckets_per_side, std::int64_t max_distance) {
  const std::int64_t max_exact = buckets_per_side / 2;
  std::vector<std::int64_t> first(static_cast<std::size_t>(buckets_per_side));
  for (std::int64_t bucket = 0; bucket <= max_exact; ++bucket) first[static_cast<std::size_t>(bucket)] = bucket;
  const LogBuckets formula(buckets_per_side, max_distance);
  for (std::int64_t bucket = max_exact + 1; bucket < buckets_per_side; ++bucket) {
    first[static_cast<std::size_t>(bucket)] = formula.First(bucket, first[static_cast<std::size_t>(bucket - 1)]);
  }
  return first;
}

std::int64_t BucketOfDistance(const std::vector<std::int64_t>& first_distances, std::int64_t distance) {
  return std::upper_bound(first_distances.begin(), first_distances.end(), distance) - first_distances.begin() - 1;
}

}  // namespace attnd::bias
