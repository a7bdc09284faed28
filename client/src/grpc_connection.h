// A connection over gRPC, as Connect makes it.
#pragma once

#include <memory>

#include "attnd/connection.h"
#include "client/src/attention_caller.h"
#include "client/src/local_calls.h"
#include "client/src/retry.h"

namespace attnd::client {

// Attention goes through `attention`, sessions over `local` where the server offers it (null: they do not), everything
// else over the policy's channel. Thread-safe, as every Connection.
std::shared_ptr<Connection> MakeGrpcConnection(std::shared_ptr<RetryPolicy> retry,
                                               std::shared_ptr<AttentionCaller> attention,
                                               std::shared_ptr<LocalCalls> local);

}  // namespace attnd::client
