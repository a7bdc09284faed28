// Builds the per-offset form of a rule.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "bias/bias_table.h"

namespace attnd::bias {

// The range of offsets that a form stores values for.
struct FormSpan {
  std::int64_t min_offset;
  std::int64_t max_offset;

  std::int64_t count() const { return max_offset - min_offset + 1; }
  // Memory of the per-offset form for `heads` heads.
  std::int64_t bytes(std::int64_t heads) const { return heads * (count() + 4) * std::int64_t{sizeof(float)}; }
};

// The offsets that the form of `rule` needs. `rule` has been validated for `heads`; `first_distances` is T5's,
// otherwise empty. Errors: RESOURCE_EXHAUSTED if the form needs more than `max_values` values.
absl::StatusOr<FormSpan> SpanOf(std::int64_t heads, const Rule& rule, const std::vector<std::int64_t>& first_distances,
                                std::int64_t max_values);

// `span` is the result of SpanOf for the same arguments. Allocates only what it returns. Errors: INVALID_ARGUMENT if
// the values of a head differ by more than a float can hold.
absl::StatusOr<OffsetForm> MakeOffsetForm(std::int64_t heads, const Rule& rule,
                                          const std::vector<std::int64_t>& first_distances, const FormSpan& span);

}  // namespace attnd::bias
