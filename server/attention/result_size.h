// The size of a request's result, before the request is validated.
#pragma once

#include <cstdint>

#include "attnd/v1/attention.pb.h"

namespace attnd::server {

// The bytes of output and log-sum-exp that are sent with the answer to `request`. Exact for a request that
// AttentionValidator accepts with this limit on results. Counts 0 for results in shared memory, and for sizes and
// dtypes that the validator refuses.
std::int64_t SentResultBytes(const v1::ComputeAttentionRequest& request, std::int64_t max_result_bytes);

}  // namespace attnd::server
