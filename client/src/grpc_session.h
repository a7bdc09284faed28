// A session's stream over gRPC.
#pragma once

#include <grpcpp/channel.h>

#include <memory>

#include "absl/status/statusor.h"
#include "attnd/options.h"
#include "client/src/session_stream.h"

namespace attnd::client {

// Starts a stream. The deadline in `options` applies to the opening only. Errors: the server's; INVALID_ARGUMENT for
// metadata that gRPC does not allow.
absl::StatusOr<std::shared_ptr<SessionStream>> StartGrpcSession(const std::shared_ptr<grpc::Channel>& channel,
                                                                const CallOptions& options);

}  // namespace attnd::client
