// What a message of the attention call says beside its ComputeRequest.
#pragma once

#include <cstdint>
#include <optional>

#include "client/src/shared_memory.h"

namespace attnd::client {

struct WireFields {
  // Tensors that the server finds in shared memory, and which are therefore not sent (or, for the results, not
  // received).
  std::optional<SharedPlace> q, k, v, output, log_sum_exp;
  // ComputeAttentionRequest.table_heads; 0: left out.
  std::int64_t table_heads = 0;
};

}  // namespace attnd::client
