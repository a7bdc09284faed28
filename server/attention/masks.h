// Masks and query positions of a ComputeAttention request.
#pragma once

#include "absl/status/status.h"
#include "attnd/v1/attention.pb.h"
#include "kernel/attention.h"

namespace attnd::server {

// Sets attention.mask: the request's, or `of_table` if the request leaves it unset. Errors: INVALID_ARGUMENT.
absl::Status SetMask(const v1::ComputeAttentionRequest& request, kernel::Mask of_table, kernel::Attention& attention);

// Sets positions, lengths and everything else that decides which keys are visible: query_offset or query_offsets,
// query_lengths, key_starts, key_lengths, key_bits, the window and prefix_lengths; and key_bias. Lists are borrowed
// from `request`. The sizes and the mask of `attention` must be set. Errors: INVALID_ARGUMENT naming the field, the
// expected value and the value it had.
absl::Status SetSequences(const v1::ComputeAttentionRequest& request, kernel::Attention& attention);

}  // namespace attnd::server
