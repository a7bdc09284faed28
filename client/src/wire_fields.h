// Fields of an attention call's message that are not in its ComputeRequest.
#pragma once

#include <cstdint>
#include <optional>

#include "client/src/shared_memory.h"

namespace attnd::client {

struct WireFields {
  // Tensors that are in shared memory, and therefore not sent (or, for results, not received).
  std::optional<SharedPlace> q, k, v, output, log_sum_exp;
  // ComputeAttentionRequest.table_heads; 0: not set.
  std::int64_t table_heads = 0;
};

}  // namespace attnd::client
