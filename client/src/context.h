// gRPC's context of one call.
#pragma once

#include <grpcpp/client_context.h>

#include <memory>

#include "absl/status/statusor.h"
#include "attnd/options.h"

namespace attnd::client {

// A context with the call's options; its cancellation is registered until the returned object goes. Errors:
// INVALID_ARGUMENT for metadata that gRPC does not allow.
absl::StatusOr<std::shared_ptr<grpc::ClientContext>> MakeContext(const CallOptions& options);

}  // namespace attnd::client
