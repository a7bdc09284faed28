// A compute request's sizes, checked.
#pragma once

#include <array>
#include <cstdint>
#include <limits>

#include "absl/status/statusor.h"
#include "attnd/attention.h"

namespace attnd::client {

// What protobuf allows a message; a little is left for the small fields.
inline constexpr std::int64_t kMaxMessageBytes = std::numeric_limits<std::int32_t>::max() - (1 << 20);

// Counts of elements, and bytes of each tensor.
struct Shape {
  std::int64_t batch, heads, kv_heads, query_length, key_length, head_dim, value_head_dim;
  std::int64_t kv_batch;  // of k and v: other than batch only with kv_rows
  bool cuttable;          // whether sequences, or heads, can travel apart
  std::int64_t q_bytes, k_bytes, v_bytes;
  DType output_dtype;
  std::array<std::int64_t, 4> output_sizes;  // in the order of the layout
  std::int64_t output_bytes, log_sum_exp_bytes;
};

// Everything about a request that can be judged without the model. Errors: INVALID_ARGUMENT with an ErrorDetail;
// RESOURCE_EXHAUSTED for a request or result that no protobuf message can hold.
absl::StatusOr<Shape> CheckRequest(const ComputeRequest& request);

}  // namespace attnd::client
