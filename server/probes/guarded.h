// What the probes answer where there is no memory (memory/no_memory.h).
#pragma once

#include "absl/functional/function_ref.h"
#include "grpcpp/support/status.h"

namespace attnd::server {

// What `answer` returns; where an allocation in it fails, RESOURCE_EXHAUSTED with a message that takes no memory. An
// error's message takes memory too. Never throws.
grpc::Status Guarded(absl::FunctionRef<grpc::Status()> answer);

}  // namespace attnd::server
