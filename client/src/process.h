// Detects that the process was forked after the library's first use.
#pragma once

#include "absl/status/status.h"

namespace attnd::client {

// Returns FAILED_PRECONDITION in a child forked after this process's first Connect: the threads of gRPC and of the
// library exist only in the parent, and parent and child would use the same sockets. Thread-safe.
absl::Status CheckProcess();

// Whether CheckProcess returns an error.
bool Forked();

}  // namespace attnd::client
