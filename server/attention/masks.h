// Which keys the queries of a ComputeAttention request may see, and where the queries stand.
#pragma once

#include "absl/status/status.h"
#include "attnd/v1/attention.pb.h"
#include "kernel/attention.h"

namespace attnd::server {

// `mask`, which is `of_table` where the request leaves it open. Errors: INVALID_ARGUMENT.
absl::Status SetMask(const v1::ComputeAttentionRequest& request, kernel::Mask of_table, kernel::Attention& attention);

// Positions, lengths and what else says which keys are seen: query_offset or query_offsets, query_lengths, key_starts,
// key_lengths, key_bits, the window and prefix_lengths; and key_bias. Lists are borrowed from `request`. The sizes and
// the mask of `attention` must be set. Errors: INVALID_ARGUMENT naming the field, what was expected and what it was.
absl::Status SetSequences(const v1::ComputeAttentionRequest& request, kernel::Attention& attention);

}  // namespace attnd::server
