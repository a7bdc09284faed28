// Where the rows of each sequence stand, when it is not a batch entry of its own in every tensor: sequences packed into
// rows (query_segments), and sequences that share keys and values (kv_rows).
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "attnd/v1/attention.pb.h"
#include "kernel/attention.h"

namespace attnd::server {

// The lists that an Attention points to then; 64 bytes a sequence at most. Moving it leaves them where they are.
struct RowPlaces {
  std::vector<std::int64_t> query_lengths, key_lengths, query_offsets;
  std::vector<std::int64_t> q, k, v, out, log_sum_exp;
};

// What PlaceRows will take for a request, in bytes. The request is not checked yet.
std::int64_t PlacesBytes(const v1::ComputeAttentionRequest& request);

// Rewrites `attention`, whose sizes, strides, masks and results are those of the tensors, for a batch of the sequences
// that query_segments or kv_rows name. Does nothing if neither is given. Errors: INVALID_ARGUMENT.
absl::Status PlaceRows(const v1::ComputeAttentionRequest& request, kernel::Attention& attention, RowPlaces& places);

}  // namespace attnd::server
