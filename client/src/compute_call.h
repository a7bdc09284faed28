// One gRPC call as one message (ComputeAttention).
#pragma once

#include <grpcpp/channel.h>

#include <memory>

#include "absl/status/statusor.h"
#include "attnd/attention.h"
#include "attnd/connection.h"
#include "attnd/options.h"
#include "client/src/shape.h"
#include "client/src/wire_fields.h"

namespace attnd::client {

// Both functions send `request`, whose checked sizes are `shape`, together with `fields`.

// Runs on the calling thread. Returns when the call is over and gRPC holds no reference to borrowed memory.
absl::StatusOr<ComputeReply> ComputeNow(const std::shared_ptr<grpc::Channel>& channel, const ComputeRequest& request,
                                        const Shape& shape, const WireFields& fields, const CallOptions& options);

// Runs on the runtime's threads. Calls `done` once the call is over and gRPC holds no reference to borrowed memory.
void ComputeLater(const std::shared_ptr<grpc::Channel>& channel, ComputeRequest request, const Shape& shape,
                  const WireFields& fields, const CallOptions& options, ComputeCallback done);

}  // namespace attnd::client
