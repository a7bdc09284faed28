// The checked sizes of a compute request.
#pragma once

#include <array>
#include <cstdint>
#include <limits>

#include "absl/status/statusor.h"
#include "attnd/attention.h"

namespace attnd::client {

// protobuf's limit for a message, less a reserve for the small fields.
inline constexpr std::int64_t kMaxMessageBytes = std::numeric_limits<std::int32_t>::max() - (1 << 20);

// Counts of elements, and bytes of each tensor.
struct Shape {
  std::int64_t batch, heads, kv_heads, query_length, key_length, head_dim, value_head_dim;
  std::int64_t kv_batch;  // batch of k and v; differs from `batch` only with kv_rows
  bool cuttable;          // whether the call can be cut into pieces
  std::int64_t q_bytes, k_bytes, v_bytes;
  DType output_dtype;
  std::array<std::int64_t, 4> output_sizes;  // in the order of the layout
  std::int64_t output_bytes, log_sum_exp_bytes;
};

// Checks everything in a request that does not depend on the model. Errors: INVALID_ARGUMENT with an ErrorDetail;
// RESOURCE_EXHAUSTED for a request or result that does not fit into a protobuf message.
absl::StatusOr<Shape> CheckRequest(const ComputeRequest& request);

}  // namespace attnd::client
