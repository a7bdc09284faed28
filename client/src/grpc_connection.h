// The Connection that Connect returns.
#pragma once

#include <memory>

#include "attnd/connection.h"
#include "client/src/attention_caller.h"
#include "client/src/local_calls.h"
#include "client/src/retry.h"

namespace attnd::client {

// Attention calls use `attention`. Sessions use `local` if the server offers it; if `local` is null they use gRPC.
// Everything else uses the channel of `retry`. Thread-safe, like every Connection.
std::shared_ptr<Connection> MakeGrpcConnection(std::shared_ptr<RetryPolicy> retry,
                                               std::shared_ptr<AttentionCaller> attention,
                                               std::shared_ptr<LocalCalls> local);

}  // namespace attnd::client
