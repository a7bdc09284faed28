// gRPC's statuses as Abseil's.
#pragma once

#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace attnd::client {

// The same code and message; an ErrorDetail among the details becomes the status's payload (see error_detail.h).
absl::Status FromGrpc(const grpc::Status& status);

}  // namespace attnd::client
