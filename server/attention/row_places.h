// Row positions of sequences that are not a batch entry of their own in every tensor: sequences packed into rows
// (query_segments), and sequences that share keys and values (kv_rows).
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "attnd/v1/attention.pb.h"
#include "kernel/attention.h"

namespace attnd::server {

// The lists that an Attention then points to; at most 64 bytes per sequence. They stay in place when this is moved.
struct RowPlaces {
  std::vector<std::int64_t> query_lengths, key_lengths, query_offsets;
  std::vector<std::int64_t> q, k, v, out, log_sum_exp;
};

// The bytes that PlaceRows will allocate for a request, which need not be validated.
std::int64_t PlacesBytes(const v1::ComputeAttentionRequest& request);

// Rewrites `attention`, whose sizes, strides, masks and results describe the tensors, for a batch of the sequences that
// query_segments or kv_rows name. Does nothing if neither is given. Errors: INVALID_ARGUMENT.
absl::Status PlaceRows(const v1::ComputeAttentionRequest& request, kernel::Attention& attention, RowPlaces& places);

}  // namespace attnd::server
