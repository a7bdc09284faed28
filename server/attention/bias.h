// The bias that a ComputeAttention request asks for: a model's table, or none.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "attnd/v1/attention.pb.h"
#include "bias/bias_table.h"
#include "bias/offset_form.h"
#include "kernel/attention.h"
#include "model/model.h"

namespace attnd::server {

// Checks that `bias` is a known value, and that a request with BIAS_NONE names no model, version, table or heads. Call
// it before looking the model up: a request with BIAS_NONE has none. Errors: INVALID_ARGUMENT naming the field.
absl::Status CheckBias(const v1::ComputeAttentionRequest& request);

// Returns the table that the request names, borrowed from `model`, after checking that it has the request's heads.
// Errors: NOT_FOUND; INVALID_ARGUMENT naming the field.
absl::StatusOr<const bias::BiasTable*> TableOf(const v1::ComputeAttentionRequest& request, const model::Model& model);

// A kernel's view of a table's per-offset form, starting at `first_head`. `form` must outlive it.
kernel::BiasView ViewOf(const bias::OffsetForm& form, std::int64_t first_head);

}  // namespace attnd::server
