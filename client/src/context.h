// The gRPC context of one call.
#pragma once

#include <grpcpp/client_context.h>

#include <memory>

#include "absl/status/statusor.h"
#include "attnd/options.h"

namespace attnd::client {

// Makes a context with the call's options. Its cancellation stays registered until the returned object is destroyed.
// Errors: INVALID_ARGUMENT for metadata that gRPC does not allow.
absl::StatusOr<std::shared_ptr<grpc::ClientContext>> MakeContext(const CallOptions& options);

}  // namespace attnd::client
