// What a request's result will take, known before the request is validated.
#pragma once

#include <cstdint>

#include "attnd/v1/attention.pb.h"

namespace attnd::server {

// The bytes of output and log-sum-exp that are sent with the answer of `request`. Exact for a request that
// AttentionValidator accepts with this limit on results; 0 for what is in shared memory, and for sizes and dtypes that
// it refuses.
std::int64_t SentResultBytes(const v1::ComputeAttentionRequest& request, std::int64_t max_result_bytes);

}  // namespace attnd::server
