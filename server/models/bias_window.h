// GetBias: a table's biases over a window of queries and keys.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "attnd/v1/model.pb.h"
#include "model/model.h"
#include "server/config/limits.h"

namespace attnd::server {

// Fills in `response`, which must be empty; after an error its content is undefined. Errors: INVALID_ARGUMENT naming
// the field, NOT_FOUND for a table that the model lacks, RESOURCE_EXHAUSTED for a window beyond limits.max_bias_cells.
absl::Status FillBiasWindow(const v1::GetBiasRequest& request, const model::Model& model, const Limits& limits,
                            v1::GetBiasResponse& response);

// An upper bound of the bytes that FillBiasWindow's answer takes, message and serialised form together. 0 for a window
// that is refused.
std::int64_t BiasWindowBytes(const v1::GetBiasRequest& request, const model::Model& model, const Limits& limits);

}  // namespace attnd::server
