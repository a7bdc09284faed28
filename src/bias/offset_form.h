// Builds the per-offset form of a rule.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "bias/bias_table.h"

namespace attnd::bias {

// The offsets that a form has values for.
struct OffsetSpan {
  std::int64_t min_offset;
  std::int64_t max_offset;

  std::int64_t count() const { return max_offset - min_offset + 1; }
  // Memory of the form of a rule of `heads` heads.
  std::int64_t bytes(std::int64_t heads) const { return heads * (count() + 4) * std::int64_t{sizeof(float)}; }
};

// `rule` has been validated for `heads`; `first_distances` is T5's, else empty. Errors: RESOURCE_EXHAUSTED if the form
// takes more than `max_values` values.
absl::StatusOr<OffsetSpan> SpanOf(std::int64_t heads, const Rule& rule,
                                  const std::vector<std::int64_t>& first_distances, std::int64_t max_values);

// `span` is that of the others. Allocates what it returns and nothing else. Errors: INVALID_ARGUMENT if the values of a
// head differ by more than a float holds.
absl::StatusOr<OffsetForm> MakeOffsetForm(std::int64_t heads, const Rule& rule,
                                          const std::vector<std::int64_t>& first_distances, const OffsetSpan& span);

}  // namespace attnd::bias
