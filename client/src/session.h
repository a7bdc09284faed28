// A session over gRPC.
#pragma once

#include <grpcpp/channel.h>

#include <memory>

#include "absl/status/statusor.h"
#include "attnd/options.h"
#include "attnd/session.h"

namespace attnd::client {

// Opens a session: one attempt. The deadline is that of the opening. Errors: the server's.
absl::StatusOr<std::unique_ptr<Session>> OpenSession(const std::shared_ptr<grpc::Channel>& channel,
                                                     const SessionRequest& request, const CallOptions& options);

}  // namespace attnd::client
