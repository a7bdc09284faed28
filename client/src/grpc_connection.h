// A connection over gRPC, as Connect makes it.
#pragma once

#include <memory>

#include "attnd/connection.h"
#include "client/src/attention_caller.h"
#include "client/src/retry.h"

namespace attnd::client {

// Attention goes through `attention`, everything else over the policy's channel. Thread-safe, as every Connection.
std::shared_ptr<Connection> MakeGrpcConnection(std::shared_ptr<RetryPolicy> retry,
                                               std::shared_ptr<AttentionCaller> attention);

}  // namespace attnd::client
