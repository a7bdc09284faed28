// Builds the per-offset form of a rule.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "bias/bias_table.h"

namespace attnd::bias {

// `rule` has been validated for `heads`; `first_distances` is T5's, else empty. Errors: RESOURCE_EXHAUSTED if it takes
// more than `max_values` values.
absl::StatusOr<OffsetForm> MakeOffsetForm(std::int64_t heads, const Rule& rule,
                                          const std::vector<std::int64_t>& first_distances, std::int64_t max_values);

}  // namespace attnd::bias
