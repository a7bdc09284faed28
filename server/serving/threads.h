// Whether the process may have the threads that a server needs: gRPC hangs or aborts where it may not.
#pragma once

#include "absl/status/status.h"
#include "server/config/options.h"

namespace attnd::server {

// The threads that compute: as the options say, otherwise as many as the process has CPUs.
int ComputingThreads(const Options& options);

// Upper bound of the threads that a server with these options starts, gRPC's among them.
int ThreadsOf(const Options& options);

// Starts this many threads at once, and ends them again. Errors: RESOURCE_EXHAUSTED saying how many could be started.
absl::Status CheckThreads(int threads);

}  // namespace attnd::server
