// GetBias: a table's biases over a window of queries and keys.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "attnd/v1/model.pb.h"
#include "model/model.h"
#include "server/config/limits.h"

namespace attnd::server {

// Errors: INVALID_ARGUMENT naming the field, NOT_FOUND for a table that the model lacks, RESOURCE_EXHAUSTED for a
// window beyond limits.max_bias_cells.
absl::StatusOr<v1::GetBiasResponse> BiasWindow(const v1::GetBiasRequest& request, const model::Model& model,
                                               const Limits& limits);

// An upper bound of the bytes that BiasWindow's answer takes: as a message, whose fields may have twice the room that
// they need, and serialised. 0 for a window that is refused.
std::int64_t BiasWindowBytes(const v1::GetBiasRequest& request, const model::Model& model, const Limits& limits);

}  // namespace attnd::server
