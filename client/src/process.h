// The process that the library works in.
#pragma once

#include "absl/status/status.h"

namespace attnd::client {

// FAILED_PRECONDITION in a child that was forked after this process's first Connect: gRPC's threads and the library's
// exist in the parent alone, and both would use the same sockets. Thread-safe.
absl::Status CheckProcess();

// Whether CheckProcess fails.
bool Forked();

}  // namespace attnd::client
