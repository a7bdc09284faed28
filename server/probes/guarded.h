// What the probes answer if there is no memory (memory/no_memory.h).
#pragma once

#include "absl/functional/function_ref.h"
#include "grpcpp/support/status.h"

namespace attnd::server {

// Returns what `answer` returns. If an allocation in `answer` fails, returns RESOURCE_EXHAUSTED with a message that
// allocates nothing. Never throws. Make errors within `answer` too, because their messages allocate.
grpc::Status Guarded(absl::FunctionRef<grpc::Status()> answer);

}  // namespace attnd::server
