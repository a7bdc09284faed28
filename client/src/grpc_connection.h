// A connection over gRPC, as Connect makes it.
#pragma once

#include <grpcpp/channel.h>

#include <memory>

#include "attnd/connection.h"
#include "client/src/attention_caller.h"

namespace attnd::client {

// Attention goes through `attention`, everything else over `channel`. Thread-safe, as every Connection.
std::shared_ptr<Connection> MakeGrpcConnection(const std::shared_ptr<grpc::Channel>& channel,
                                               std::shared_ptr<AttentionCaller> attention);

}  // namespace attnd::client
