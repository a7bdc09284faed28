// The stream of a session over gRPC.
#pragma once

#include <grpcpp/channel.h>

#include <memory>

#include "absl/status/statusor.h"
#include "attnd/options.h"
#include "client/src/session_stream.h"

namespace attnd::client {

// Starts one. The deadline is that of the opening. Errors: the server's; INVALID_ARGUMENT for metadata.
absl::StatusOr<std::shared_ptr<SessionStream>> StartGrpcSession(const std::shared_ptr<grpc::Channel>& channel,
                                                                const CallOptions& options);

}  // namespace attnd::client
