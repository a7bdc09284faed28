// Which bias a ComputeAttention request asks for: that of a model's table, or none.
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

// Whether `bias` is known and goes with what the request names of a model. To be called before the model is looked up:
// a request with BIAS_NONE has none. Errors: INVALID_ARGUMENT naming the field.
absl::Status CheckBias(const v1::ComputeAttentionRequest& request);

// The table that the request names, borrowed from `model`, which has the request's heads. Errors: NOT_FOUND;
// INVALID_ARGUMENT naming the field.
absl::StatusOr<const bias::BiasTable*> TableOf(const v1::ComputeAttentionRequest& request, const model::Model& model);

// The view that kernels take of a table's per-offset form, which must outlive it, from `first_head` on.
kernel::BiasView ViewOf(const bias::OffsetForm& form, std::int64_t first_head);

}  // namespace attnd::server
